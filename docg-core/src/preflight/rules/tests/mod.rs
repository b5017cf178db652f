//! Tests of each rule and code. A test calls [`run`](crate::preflight::run) with a small workflow, and with a
//! provider that gives prepared answers.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use crate::{
    error::StepFailure,
    ids::{OrganizationId, WorkflowId},
    preflight::{
        Issue, PreflightLimits, PreflightRequest, ProbeFailure, ResourceProbe, Severity,
        TemplateFacts, run,
    },
    run::{Inputs, Phase, Step},
    time::Timestamp,
    workflow::{
        EffectContext, Handler, NodeSpec, ParamKind, ParamSpec, Registry, StepContext, StepOutcome,
        Workflow, compute, effect, validate::validate,
    },
};

mod agreement;
mod checks;
mod data;
mod recipients;
mod resources;
mod scope;

fn computing(spec: NodeSpec) -> Handler {
    compute(spec, async |_: StepContext, _: Value| {
        Ok::<_, StepFailure>(json!({}))
    })
}

fn effecting(spec: NodeSpec) -> Handler {
    effect(spec, async |_: EffectContext, _: Value| {
        Ok(StepOutcome::Done(Value::Null))
    })
    .into()
}

fn registry() -> Registry {
    let mut registry = Registry::default();
    registry.add(computing(
        NodeSpec::new("extract", Phase::Trigger)
            .param(ParamSpec::required("fields", ParamKind::Object))
            .outputs_of_param("fields"),
    ));
    registry.add(computing(
        NodeSpec::new("render", Phase::Render)
            .param(ParamSpec::required("template", ParamKind::Template))
            .param(ParamSpec::optional("cover", ParamKind::Template))
            .param(ParamSpec::optional("data", ParamKind::Json))
            .outputs(["file"]),
    ));
    registry.add(effecting(
        NodeSpec::new("save", Phase::Save)
            .param(ParamSpec::required("file", ParamKind::File))
            .param(ParamSpec::required("folder", ParamKind::Folder))
            .param(ParamSpec::optional("connection", ParamKind::Connection))
            .outputs(["url"]),
    ));
    registry.add(effecting(
        NodeSpec::new("send", Phase::Delivery)
            .param(ParamSpec::required("to", ParamKind::EmailList))
            .param(ParamSpec::optional("cc", ParamKind::EmailList))
            .param(ParamSpec::optional("reply_to", ParamKind::Email))
            .param(ParamSpec::required("subject", ParamKind::Text)),
    ));
    registry.add(effecting(
        NodeSpec::new("sign", Phase::Signature)
            .param(ParamSpec::required("signers", ParamKind::Signers))
            .param(ParamSpec::optional("provider", ParamKind::Connection))
            .param(ParamSpec::optional("expires_in_ms", ParamKind::Integer)),
    ));
    registry.add(effecting(
        NodeSpec::new("call", Phase::Trigger)
            .any_phase()
            .param(ParamSpec::optional("url", ParamKind::Url))
            .param(ParamSpec::optional(
                "method",
                ParamKind::OneOf(vec!["GET", "POST"]),
            ))
            .param(ParamSpec::optional("flag", ParamKind::Boolean)),
    ));
    registry
}

/// A provider with prepared answers, by `kind:name`. The provider accepts every other resource, and records
/// all questions.
#[derive(Default)]
struct Provider {
    answers: HashMap<String, Reply>,
    asked: Mutex<Vec<String>>,
}

#[derive(Clone)]
enum Reply {
    Size(u64),
    Fails(ProbeFailure),
    Hangs,
    Panics,
}

impl Provider {
    fn with(mut self, name: &str, reply: Reply) -> Self {
        self.answers.insert(name.to_owned(), reply);
        self
    }

    fn refusing(name: &str, code: &'static str) -> Self {
        Self::default().with(name, Reply::Fails(ProbeFailure::refused(code)))
    }

    async fn answer(&self, kind: &str, name: &str) -> Result<u64, ProbeFailure> {
        let name = format!("{kind}:{name}");
        self.asked.lock().expect("not poisoned").push(name.clone());
        match self.answers.get(&name) {
            None => Ok(0),
            Some(Reply::Size(bytes)) => Ok(*bytes),
            Some(Reply::Fails(failure)) => Err(failure.clone()),
            Some(Reply::Hangs) => std::future::pending().await,
            Some(Reply::Panics) => panic!("a bug of the probe"),
        }
    }
}

#[async_trait]
impl ResourceProbe for Provider {
    async fn template(&self, _: OrganizationId, name: &str) -> Result<TemplateFacts, ProbeFailure> {
        self.answer("template", name)
            .await
            .map(|bytes| TemplateFacts { bytes })
    }
    async fn folder(&self, _: OrganizationId, name: &str) -> Result<(), ProbeFailure> {
        self.answer("folder", name).await.map(drop)
    }
    async fn connection(&self, _: OrganizationId, name: &str) -> Result<(), ProbeFailure> {
        self.answer("connection", name).await.map(drop)
    }
}

/// The input of one preflight.
struct Case {
    registry: Registry,
    workflow: Workflow,
    inputs: Inputs,
    probe: Arc<Provider>,
    limits: PreflightLimits,
    steps: Vec<Step>,
    dry_run: bool,
    until_phase: Option<Phase>,
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        other => panic!("{other} is no object"),
    }
}

impl Case {
    fn new(nodes: Value, trigger: Value) -> Self {
        Self::with(registry(), nodes, trigger)
    }

    fn with(registry: Registry, nodes: Value, trigger: Value) -> Self {
        let draft = serde_json::from_value(json!({"name": "n", "nodes": nodes})).expect("a draft");
        let valid = validate(draft, &registry).expect("in order");
        let workflow = Workflow {
            id: WorkflowId(uuid::Uuid::from_u128(1)),
            organization_id: OrganizationId(uuid::Uuid::from_u128(2)),
            name: valid.name,
            version: 1,
            input_schema: valid.input_schema,
            settings: valid.settings,
            nodes: valid.nodes,
            created_at: Timestamp::from_millis(0),
            updated_at: Timestamp::from_millis(0),
            unreadable: false,
        };
        Self {
            registry,
            workflow,
            inputs: Inputs {
                trigger_data: Arc::new(trigger),
                node_overrides: Map::new(),
                ..Inputs::default()
            },
            probe: Arc::default(),
            limits: PreflightLimits {
                check_timeout: std::time::Duration::from_millis(50),
                ..PreflightLimits::default()
            },
            steps: Vec::new(),
            dry_run: false,
            until_phase: None,
        }
    }

    fn schema(mut self, schema: Value) -> Self {
        self.workflow.input_schema = object(schema);
        self
    }

    fn provider(mut self, provider: Provider) -> Self {
        self.probe = Arc::new(provider);
        self
    }

    async fn issues(&self) -> Vec<Issue> {
        let probe: Arc<dyn ResourceProbe> = Arc::clone(&self.probe) as _;
        run(PreflightRequest {
            organization_id: self.workflow.organization_id,
            workflow: &self.workflow,
            inputs: &self.inputs,
            registry: &self.registry,
            probe: &probe,
            limits: &self.limits,
            steps: &self.steps,
            dry_run: self.dry_run,
            until_phase: self.until_phase,
        })
        .await
    }

    /// Runs preflight and returns each issue as `domain code node field`; the code of a warning ends in `?`.
    async fn found(&self) -> Vec<String> {
        let issues = self.issues().await;
        issues.iter().for_each(assert_readable);
        let line = |issue: &Issue| {
            let mark = if issue.severity == Severity::Warning {
                "?"
            } else {
                ""
            };
            let node = issue.node_id.as_ref().map_or("-", |node| node.as_str());
            format!(
                "{} {}{mark} {node} {}",
                issue.domain.as_str(),
                issue.code,
                issue
                    .field
                    .as_ref()
                    .map_or("-".to_owned(), |_| short(issue))
            )
        };
        issues.iter().map(line).collect()
    }
}

/// An issue's field as short as these tests write it: `trigger.a.b`, or `param.a` of the issue's node.
fn short(issue: &Issue) -> String {
    let field = issue.field.as_deref().unwrap_or_default();
    let of_node = issue.node_id.as_ref().map(|node| format!("/nodes/{node}/"));
    let of_node = of_node.and_then(|prefix| field.strip_prefix(&*prefix));
    let whole = field
        .strip_prefix("/trigger_data")
        .map(|rest| format!("trigger{rest}"));
    let short = of_node.map(str::to_owned).or(whole);
    let short =
        short.unwrap_or_else(|| panic!("{field} is of neither a node nor the trigger data"));
    short.replace('/', ".")
}

/// Asserts that a person can read the message: it has words in both languages, and no placeholder is left.
fn assert_readable(issue: &Issue) {
    for locale in crate::i18n::Locale::ALL {
        let text = issue.message_human.render(locale);
        assert!(
            text.contains(' ') && !text.contains("{ $") && !text.contains("{$"),
            "{}: {text}",
            issue.code
        );
    }
}

fn node(id: &str, node_type: &str, params: Value) -> Value {
    json!({"id": id, "type": node_type, "params": params})
}
