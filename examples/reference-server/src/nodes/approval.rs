//! `approval`: the node type of `docg-core`; this server sends the approvers their links by mail.

use std::sync::Arc;

use async_trait::async_trait;
use docg_core::{
    approval::{self, ApprovalNotifier, Invitation},
    error::StepFailure,
    workflow::{EffectContext, Handler},
};

use super::send_email::failure;
use crate::approvals::Approvals;

/// The handler of the node type `approval`.
pub(super) fn handler(approvals: Approvals) -> Handler {
    approval::node(approvals.key(), Arc::new(ByMail(approvals)))
}

struct ByMail(Approvals);

#[async_trait]
impl ApprovalNotifier for ByMail {
    async fn invite(
        &self,
        context: &EffectContext,
        invitation: Invitation,
    ) -> Result<(), StepFailure> {
        self.0
            .write_to(context, invitation)
            .await
            .map_err(|e| failure(e, context, "approvers"))
    }
}
