//! One good call for each operation of the OpenAPI document. The resources that the calls name exist.

use serde_json::{Value, json};

use crate::{
    conformance::Operation,
    support::{Call, World},
};

/// Operations without bearer credentials: a token in the path or a signed webhook proves the caller, or
/// anybody may call.
pub(crate) const OPEN: [&str; 9] = [
    "approve",
    "getApproval",
    "getOpenApi",
    "live",
    "metrics",
    "ready",
    "receiveSignatureWebhook",
    "reject",
    "streamHealth",
];

/// A test world with executions that wait for a signature, for an approval, and for an event.
pub(crate) struct Cases {
    pub(crate) world: World,
    execution: String,
    signature: String,
    approval: String,
    before: Vec<Value>,
}

impl Cases {
    pub(crate) async fn new() -> Self {
        let world = World::new().await;
        let signing = world.start(json!([{"id": "s", "type": "sign"}])).await;
        world.until(&signing, "signature.requested").await;
        let waiting = world.get(&signing).await.json()["waiting_for"].clone();
        let signature = waiting["detail"]["signature_request_id"].as_str();
        let asking = json!([{
            "id": "ok", "type": "approval", "phase": "save",
            "params": {"approvers": ["ann@example.com"]},
        }]);
        let asking = world.start(asking).await;
        world.until(&asking, "approval.requested").await;
        let event = json!([{
            "id": "event", "type": "wait-for-event", "phase": "save",
            "params": {"name": "payment.received", "key": "7"},
        }]);
        let event = world.start(event).await;
        world.until(&event, "step.waiting").await;
        let invitation = world.invitations().pop().expect("an invitation");
        let mut cases = Self {
            execution: signing.rsplit('/').next().expect("an id").to_owned(),
            signature: signature.expect("an id").to_owned(),
            approval: invitation.token,
            before: Vec::new(),
            world,
        };
        cases.before = cases.state().await;
        cases
    }

    /// The path of an operation, filled with the ids and tokens of resources that exist.
    pub(crate) fn path(&self, operation: Operation) -> String {
        let id = match operation.path {
            path if path.starts_with("/api/v1/workflows/") => self.world.workflow.to_string(),
            path if path.starts_with("/api/v1/signatures/") => self.signature.clone(),
            _ => self.execution.clone(),
        };
        operation
            .path
            .replace("{id}", &id)
            .replace("{token}", &self.approval)
            .replace("{provider}", "desk")
            .replace("{name}", "payment.received")
    }

    /// The body of a good call; null if the operation takes none.
    pub(crate) fn body(&self, operation: Operation) -> Value {
        let id = operation.id();
        match id {
            "putWorkflow" => {
                json!({"name": "Test", "nodes": [{"id": "a", "type": "echo", "params": {"in": 1}}]})
            }
            "createStreamToken" => json!({"execution_id": self.execution}),
            "approve" | "reject" => json!({"comment": "Fine."}),
            "startExecution" | "checkWorkflow" | "retryExecution" => json!({"trigger_data": {}}),
            "callExecutions" => json!({
                "action": "cancel", "ids": [self.execution], "reason": "A test.",
                "filter": {"status": ["signing"], "waiting_for": ["signature"]},
            }),
            "sendEvent" | "sendEventByKey" => json!({"key": "7", "payload": {"paid": true}}),
            "pauseExecution" | "cancelExecution" => json!({"reason": "A test."}),
            "requestSignature" => json!({"signers": [{"email": "ann@example.com"}]}),
            "resumeExecution" => json!({"approved": true, "acknowledge": ["signatures_lost"]}),
            "deleteWorkflow" | "receiveSignatureWebhook" => Value::Null,
            _ if operation.method == "GET" => Value::Null,
            _ => panic!("{id} is new: give it its case here, and look whether it is OPEN"),
        }
    }

    /// A good call of the operation, still without credentials.
    pub(crate) fn call(&self, operation: Operation) -> Call {
        let call = Call::new(operation.method, self.path(operation));
        match self.body(operation) {
            Value::Null => call,
            body => call.json(body),
        }
    }

    /// Reads the world's resources. If a call changed anything, one of these answers would differ.
    async fn state(&self) -> Vec<Value> {
        let mut state = Vec::new();
        let paths = [
            "/api/v1/executions".to_owned(),
            "/api/v1/workflows".to_owned(),
            format!("/api/v1/approvals/{}", self.approval),
            format!("/api/v1/signatures/{}/signers", self.signature),
        ];
        for path in paths {
            let answer = self.world.get(&path).await;
            assert_eq!(answer.status.as_u16(), 200, "{}", answer.text);
            state.push(answer.json());
        }
        state
    }

    /// Fails if a call has changed anything since the cases were created.
    pub(crate) async fn nothing_was_done(&self) {
        assert_eq!(self.state().await, self.before);
    }
}
