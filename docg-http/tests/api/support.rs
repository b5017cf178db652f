//! The test world: an engine with workers over the memory adapters, the API's router over this engine, and a
//! client of the router.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Request, StatusCode},
    response::Response,
};
use docg_core::{
    approval::{self, ApprovalNotifier, Invitation},
    engine::{WorkerOptions, Workers},
    event::Event,
    ports::Store,
    prelude::*,
    signature::{
        Envelope, EnvelopeRequest, NewSignatureRequest, NewSigner, ProviderError, ProviderUpdate,
        SignatureProvider, SignatureRequest, SignerFact, SignerFactKind, WebhookError,
        WebhookRequest,
    },
    time::{Clock, SystemClock, Timestamp},
    workflow::waits,
};
use docg_http::{HttpOptions, Principal, Scope, StaticTokens};
use docg_store_memory::{MemoryBus, MemoryStore};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tower::ServiceExt;

use crate::conformance::{assert_valid, check_head, operations};

pub(crate) struct World {
    pub(crate) engine: Engine,
    pub(crate) router: Router,
    pub(crate) organization: OrganizationId,
    pub(crate) other: OrganizationId,
    pub(crate) workflow: WorkflowId,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) bus: Arc<MemoryBus>,
    /// Each notification lets one handler of type `gated` end.
    pub(crate) gate: Arc<Notify>,
    inbox: Inbox,
    _workers: Workers,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) async fn of(response: Response) -> Self {
        let (parts, body) = response.into_parts();
        let bytes = tokio::time::timeout(
            Duration::from_secs(20),
            axum::body::to_bytes(body, usize::MAX),
        );
        let bytes = bytes.await.expect("the answer ends").expect("a body");
        Self {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8_lossy(&bytes).into_owned(),
        }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// Checks that the answer is a problem with this status and code, and returns its body.
    pub(crate) fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json");
        let body = self.json();
        assert_eq!(body["code"], code, "{body}");
        assert_eq!(body["status"], status);
        assert_eq!(body["error"], body["title"]);
        assert_eq!(body["correlation_id"], self.header("x-correlation-id"));
        assert!(
            body["detail"]
                .as_str()
                .is_some_and(|detail| !detail.is_empty())
        );
        body
    }
}

/// A request that a test sends.
pub(crate) struct Call {
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: String,
}

impl Call {
    pub(crate) fn new(method: &'static str, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            headers: Vec::new(),
            body: String::new(),
        }
    }
    pub(crate) fn token(self, token: &str) -> Self {
        self.header("authorization", format!("Bearer {token}"))
    }
    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
    pub(crate) fn json(mut self, body: Value) -> Self {
        self.body = body.to_string();
        self.header("content-type", "application/json")
    }
    pub(crate) fn body(mut self, body: impl Into<String>) -> Self {
        self.body = body.into();
        self
    }
    pub(crate) fn request(self) -> Request<Body> {
        let mut request = Request::builder().method(self.method).uri(self.path);
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        request.body(Body::from(self.body)).expect("a request")
    }
}

/// The parameters of a node of type `ask`.
#[derive(serde::Deserialize)]
struct Asked {
    provider: String,
    file: Value,
    signers: Vec<NewSigner>,
}

/// A signature provider. Its webhooks are authenticated by the header `x-desk: proof`.
struct Desk;

#[async_trait::async_trait]
impl SignatureProvider for Desk {
    fn name(&self) -> &str {
        "desk"
    }
    async fn create(&self, request: EnvelopeRequest) -> Result<Envelope, ProviderError> {
        Ok(Envelope::new(request.idempotency_key))
    }
    async fn find(&self, _: &EnvelopeRequest) -> Result<Option<Envelope>, ProviderError> {
        Ok(None)
    }
    async fn signed_document(&self, request: &SignatureRequest) -> Result<Value, ProviderError> {
        Ok(request.file.clone())
    }
    async fn status(&self, _: &SignatureRequest) -> Result<Vec<SignerFact>, ProviderError> {
        Ok(Vec::new())
    }
    async fn remind(&self, _: &SignatureRequest) -> Result<(), ProviderError> {
        Ok(())
    }
    async fn cancel(&self, _: &SignatureRequest) -> Result<(), ProviderError> {
        Ok(())
    }
    fn reminds_itself(&self) -> bool {
        true
    }
    fn read_webhook(&self, request: &WebhookRequest) -> Result<ProviderUpdate, WebhookError> {
        if request.header("x-desk") != Some("proof") {
            return Err(WebhookError::Unauthenticated);
        }
        let body: Value = serde_json::from_slice(&request.body)
            .map_err(|e| WebhookError::Malformed(e.to_string()))?;
        let text = |name: &str| body[name].as_str().map(str::to_owned);
        Ok(ProviderUpdate {
            envelope_id: text("envelope"),
            dedupe_key: text("delivery").unwrap_or_default(),
            facts: text("signed")
                .map(|email| SignerFact::signed(email, Timestamp::now()))
                .into_iter()
                .chain(text("declined").map(|email| {
                    SignerFact::new(email, SignerFactKind::Declined, Timestamp::now())
                }))
                .collect(),
        })
    }
}

/// Collects the invitations to approvers.
#[derive(Clone, Default)]
struct Inbox(Arc<Mutex<Vec<Invitation>>>);

impl Inbox {
    fn all(&self) -> Vec<Invitation> {
        self.0.lock().expect("not poisoned").clone()
    }
}

#[async_trait::async_trait]
impl ApprovalNotifier for Inbox {
    async fn invite(&self, _: &EffectContext, invitation: Invitation) -> Result<(), StepFailure> {
        self.0.lock().expect("not poisoned").push(invitation);
        Ok(())
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut HttpOptions)) -> Self {
        Self::at(Arc::new(SystemClock), change).await
    }

    /// A world whose engine uses this clock.
    pub(crate) async fn at(clock: Arc<dyn Clock>, change: impl FnOnce(&mut HttpOptions)) -> Self {
        // Parse the OpenAPI document now, so that its parsing does not use up a request's time limit.
        assert!(!operations().is_empty());
        let gate = Arc::new(Notify::new());
        let spec = |name: &'static str, phase| {
            NodeSpec::new(name, phase).param(ParamSpec::optional("in", ParamKind::Json))
        };
        let gated = {
            let gate = Arc::clone(&gate);
            effect(spec("gated", Phase::Delivery), move |_, _: Value| {
                let gate = Arc::clone(&gate);
                async move {
                    gate.notified().await;
                    StepOutcome::done(json!({"accepted": true}))
                }
            })
        };
        let (store, inbox) = (Arc::new(MemoryStore::default()), Inbox::default());
        let shared: Arc<dyn Store> = Arc::clone(&store) as _;
        let bus = Arc::new(MemoryBus::default());
        let engine = Engine::builder(shared, Arc::clone(&bus) as _)
            .step(compute(
                spec("echo", Phase::Render),
                |_, p: Value| async move { Ok(p) },
            ))
            .step(compute(
                NodeSpec::new("render", Phase::Render)
                    .param(ParamSpec::required("file", ParamKind::Json)),
                |_, p: Value| async move { Ok(p) },
            ))
            .step(compute(
                spec("broken", Phase::Render),
                |_, _: Value| async {
                    Err::<Value, _>(
                        StepFailure::fatal("render_failed", "The document cannot be rendered.")
                            .tech("canary-tech"),
                    )
                },
            ))
            .step(gated)
            .step(waits::until())
            .step(waits::event())
            .step(approval::node([9; 32], Arc::new(inbox.clone())))
            .step(effect(
                spec("picky", Phase::Delivery),
                |_, p: Value| async move {
                    if p["in"] == "good" {
                        return StepOutcome::done(json!({"sent": "good"}));
                    }
                    Err(StepFailure::fatal(
                        "wrong_value",
                        "This value is not taken.",
                    ))
                },
            ))
            // A node type whose first attempt has an unknown outcome.
            .step(effect(
                spec("doubtful", Phase::Delivery),
                |context, _: Value| async move {
                    if context.attempt == 1 {
                        return Err(StepFailure::outcome_unknown("broken_off", "It broke off."));
                    }
                    StepOutcome::done(json!({"sent": format!("on attempt {}", context.attempt)}))
                },
            ))
            .step(effect(
                spec("traced", Phase::Delivery),
                |context, _: Value| async move {
                    StepOutcome::done(json!({
                        "correlation_id": context.correlation_id,
                        "traceparent": context.traceparent,
                    }))
                },
            ))
            .step(effect(spec("note", Phase::Delivery), |_, p: Value| async {
                StepOutcome::done(p)
            }))
            .step(effect(
                spec("sign", Phase::Signature),
                |context, _: Value| async move {
                    let signers = [NewSigner::new("signer@example.com")];
                    Ok(StepOutcome::Wait(Wait::Signatures(
                        NewSignatureRequest::new("desk", context.idempotency_key(), signers),
                    )))
                },
            ))
            .step(effect(
                NodeSpec::new("ask", Phase::Signature)
                    .param(ParamSpec::required("provider", ParamKind::Connection))
                    .param(ParamSpec::required("file", ParamKind::File))
                    .param(ParamSpec::required("signers", ParamKind::Signers)),
                |context, asked: Asked| async move {
                    let envelope = context.idempotency_key();
                    let asked = NewSignatureRequest::new(asked.provider, envelope, asked.signers)
                        .file(asked.file);
                    Ok(StepOutcome::Wait(Wait::Signatures(asked)))
                },
            ))
            .signature_requests("ask", "desk")
            .signature_provider(Arc::new(Desk))
            .clock(clock)
            .options(|options| options.cancel_grace = Duration::from_millis(50))
            .build();
        let (organization, other) = (OrganizationId::new(), OrganizationId::new());
        let principal =
            |actor: &str, organizations: Vec<OrganizationId>, scopes: &[Scope]| Principal {
                actor: actor.to_owned(),
                organizations,
                scopes: scopes.to_vec(),
            };
        let user: Vec<Scope> = Scope::ALL
            .into_iter()
            .filter(|scope| *scope != Scope::ExecutionsDebug)
            .collect();
        let tokens = StaticTokens::default()
            .token("user", principal("user", vec![organization], &user))
            .token(
                "technician",
                principal("technician", vec![organization], &Scope::ALL),
            )
            .token(
                "reader",
                principal("reader", vec![organization], &[Scope::ExecutionsRead]),
            )
            .token("nothing", principal("nothing", vec![organization], &[]))
            .token("stranger", principal("stranger", vec![other], &Scope::ALL))
            .token(
                "both",
                principal("both", vec![organization, other], &Scope::ALL),
            );
        // For each scope, add a token `without <scope>` that has all other scopes.
        let tokens = Scope::ALL.into_iter().fold(tokens, |tokens, missing| {
            let scopes: Vec<_> = Scope::ALL.into_iter().filter(|it| *it != missing).collect();
            let name = format!("without {missing}");
            tokens.token(&name, principal(&name, vec![organization], &scopes))
        });
        let mut options = HttpOptions::new(Arc::new(tokens), [7; 32]);
        options.metrics = Some(docg_http::Metrics::default());
        options.drain_over = Duration::ZERO;
        change(&mut options);
        let world = Self {
            _workers: engine
                .start_workers(WorkerOptions::default())
                .expect("no other workers run"),
            router: docg_http::router(engine.clone(), options),
            engine,
            organization,
            other,
            workflow: WorkflowId::new(),
            store,
            bus,
            gate,
            inbox,
        };
        world
            .put(
                world.workflow,
                json!([{"id": "a", "type": "echo", "params": {"in": "{{trigger.deal}}"}}]),
            )
            .await;
        world
    }

    /// Stores a workflow with these nodes.
    pub(crate) async fn put(&self, id: WorkflowId, nodes: Value) {
        let draft =
            serde_json::from_value(json!({"name": "Test", "nodes": nodes})).expect("readable");
        self.engine
            .put_workflow(self.organization, id, draft, None)
            .await
            .expect("valid");
    }

    /// Sends a request and checks the answer's head. The body is left for the test to read, and is not
    /// checked.
    pub(crate) async fn open(&self, call: Call) -> Response {
        self.opened(call).await.0
    }

    async fn opened(&self, call: Call) -> (Response, Option<&'static Value>) {
        let (method, path) = (call.method, call.path.clone());
        let router = self.router.clone();
        let response = router.oneshot(call.request()).await.expect("infallible");
        let schema = check_head(method, &path, response.status(), response.headers());
        (response, schema)
    }

    /// Sends a request, reads the whole answer, and checks it against the OpenAPI document.
    pub(crate) async fn send(&self, call: Call) -> Answer {
        let what = format!("{} {}", call.method, call.path);
        let head = call.method == "HEAD";
        let (response, schema) = self.opened(call).await;
        let answer = Answer::of(response).await;
        let json = answer.header("content-type").ends_with("json") && !head;
        if let Some(schema) = schema.filter(|_| json) {
            assert_valid(schema, &answer.json(), &what);
        }
        answer
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Call::new("GET", path).token("user")).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Call::new("POST", path).token("user").json(body))
            .await
    }

    /// Starts an execution of these nodes and returns its path.
    pub(crate) async fn start(&self, nodes: Value) -> String {
        let workflow = WorkflowId::new();
        self.put(workflow, nodes).await;
        let body = json!({"trigger_data": {"deal": {"amount": 5}}});
        let answer = self
            .post(&format!("/api/v1/workflows/{workflow}/executions"), body)
            .await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        format!(
            "/api/v1/executions/{}",
            answer.json()["id"].as_str().expect("an id")
        )
    }

    /// The invitations that were sent to approvers.
    pub(crate) fn invitations(&self) -> Vec<Invitation> {
        self.inbox.all()
    }

    /// Waits until the execution has an event of this type.
    pub(crate) async fn until(&self, path: &str, event_type: &str) {
        self.until_count(path, event_type, 1).await;
    }

    /// Waits until the execution has `count` events of this type.
    pub(crate) async fn until_count(&self, path: &str, event_type: &str, count: usize) {
        self.until_events(path, count, event_type, |event| {
            event.event_type() == event_type
        })
        .await;
    }

    /// Waits until `fits` is true for `count` events of the execution.
    pub(crate) async fn until_events(
        &self,
        path: &str,
        count: usize,
        what: &str,
        fits: impl Fn(&Event) -> bool,
    ) {
        let id = path
            .rsplit('/')
            .next()
            .and_then(|id| id.parse().ok())
            .expect("an id");
        let mut feed = self
            .engine
            .feed(self.organization, id, 0)
            .await
            .expect("a feed");
        let reading = async {
            let mut seen = 0;
            while let Some(event) = feed.next().await {
                seen += usize::from(fits(&event.expect("readable")));
                if seen == count {
                    return;
                }
            }
            panic!("it ended without {what}");
        };
        tokio::time::timeout(Duration::from_secs(20), reading)
            .await
            .expect("it happens");
    }

    /// Starts an execution, waits until it has completed, and returns its path.
    pub(crate) async fn completed(&self) -> String {
        let path = self
            .start(json!([{"id": "a", "type": "echo", "params": {"in": "{{trigger.deal}}"}}]))
            .await;
        self.until(&path, "execution.completed").await;
        path
    }
}

/// Replaces the values that differ each time a test runs: ids become numbers in order of appearance, and
/// hashes, times and durations become fixed texts.
pub(crate) fn scrubbed(value: &Value) -> Value {
    fn walk(value: &Value, ids: &mut Vec<String>) -> Value {
        match value {
            Value::Array(items) => items.iter().map(|item| walk(item, ids)).collect(),
            Value::Object(map) => map
                .iter()
                .map(|(key, value)| {
                    let scrubbed = match key.as_str() {
                        "duration_ms" | "waiting_ms" if value.is_number() => json!("[ms]"),
                        _ => walk(value, ids),
                    };
                    (key.clone(), scrubbed)
                })
                .collect::<serde_json::Map<_, _>>()
                .into(),
            Value::String(text) => {
                let hash = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
                if text.parse::<Timestamp>().is_ok() {
                    json!("[time]")
                } else if hash && text.bytes().any(|b| b != b'0') {
                    json!("[hash]")
                } else if uuid::Uuid::parse_str(text).is_ok() {
                    let known = ids.iter().position(|id| id == text);
                    let number = known.unwrap_or_else(|| {
                        ids.push(text.clone());
                        ids.len() - 1
                    });
                    json!(format!("[id {number}]"))
                } else {
                    value.clone()
                }
            }
            _ => value.clone(),
        }
    }
    walk(value, &mut Vec::new())
}
