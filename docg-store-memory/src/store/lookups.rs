//! Finds executions by their signature requests and their approvals' links.

use std::collections::{HashMap, HashSet};

use docg_core::{
    approval::Approval,
    ids::{ApprovalId, ExecutionId, SignatureRequestId},
    signature::SignatureRequest,
};

use crate::hash::IdMap;

#[derive(Default)]
pub(super) struct Lookups {
    requests: IdMap<SignatureRequestId, ExecutionId>,
    /// Keyed by provider, then by the provider's envelope id.
    envelopes: HashMap<String, HashMap<String, (ExecutionId, SignatureRequestId)>>,
    tokens: HashMap<[u8; 32], (ExecutionId, ApprovalId)>,
}

impl Lookups {
    /// True if the envelope or a token belongs to another execution, or two approvers share a token.
    pub(super) fn is_taken(
        &self,
        owner: ExecutionId,
        signature: Option<&SignatureRequest>,
        approval: Option<&Approval>,
    ) -> bool {
        let is_others = |(execution, _)| execution != owner;
        let envelope = signature.and_then(|it| self.envelope(&it.provider, &it.envelope_id));
        let mut seen = HashSet::new();
        let approvers = approval.iter().flat_map(|approval| &approval.approvers);
        envelope.is_some_and(|(execution, _)| execution != owner)
            || approvers
                .map(|approver| &approver.token_hash)
                .any(|hash| !seen.insert(hash) || self.token(hash).is_some_and(is_others))
    }

    pub(super) fn add_signature(&mut self, request: &SignatureRequest) {
        self.requests.insert(request.id, request.execution_id);
        let found = (request.execution_id, request.id);
        if !self.envelopes.contains_key(&request.provider) {
            self.envelopes
                .insert(request.provider.clone(), HashMap::new());
        }
        if let Some(envelopes) = self.envelopes.get_mut(&request.provider) {
            envelopes.insert(request.envelope_id.clone(), found);
        }
    }

    pub(super) fn remove_signature(&mut self, request: &SignatureRequest) {
        self.requests.remove(&request.id);
        if let Some(envelopes) = self.envelopes.get_mut(&request.provider)
            && envelopes
                .get(&request.envelope_id)
                .is_some_and(|(_, id)| *id == request.id)
        {
            envelopes.remove(&request.envelope_id);
        }
    }

    pub(super) fn add_approval(&mut self, approval: &Approval) {
        for approver in &approval.approvers {
            self.tokens
                .insert(approver.token_hash, (approval.execution_id, approval.id));
        }
    }

    pub(super) fn remove_approval(&mut self, approval: &Approval) {
        for approver in &approval.approvers {
            self.tokens.remove(&approver.token_hash);
        }
    }

    pub(super) fn request(&self, id: SignatureRequestId) -> Option<ExecutionId> {
        self.requests.get(&id).copied()
    }

    pub(super) fn envelope(
        &self,
        provider: &str,
        envelope: &str,
    ) -> Option<(ExecutionId, SignatureRequestId)> {
        self.envelopes.get(provider)?.get(envelope).copied()
    }

    pub(super) fn token(&self, hash: &[u8; 32]) -> Option<(ExecutionId, ApprovalId)> {
        self.tokens.get(hash).copied()
    }
}
