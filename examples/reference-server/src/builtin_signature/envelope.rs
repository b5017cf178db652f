//! The provider's records: the signers of each document, and the decision of each signer.

use std::collections::HashMap;

use docg_core::{
    ids::{ExecutionId, OrganizationId},
    signature::NewSigner,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use super::{Desk, link::SignerRef};
use crate::files::{Document, FilesError, RecordKind};

/// A request to sign a document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Envelope {
    pub(super) id: String,
    pub(super) organization_id: OrganizationId,
    /// The execution that requests the signatures. Records of older versions do not have it.
    #[serde(default)]
    pub(super) execution_id: Option<ExecutionId>,
    pub(super) document: Document,
    pub(super) signers: Vec<NewSigner>,
    pub(super) message: Option<String>,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) remind_every_ms: Option<u64>,
    pub(super) created_at: Timestamp,
    /// True if the signers who are first in the order have been sent their mails.
    pub(super) invited: bool,
}

/// A signer's decision. Only the first decision of a signer is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Decision {
    pub(super) kind: DecisionKind,
    pub(super) at: Timestamp,
    /// The name that was typed as a signature.
    pub(super) name: Option<String>,
    /// The reason for declining.
    pub(super) reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum DecisionKind {
    Signed,
    Declined,
}

impl Envelope {
    pub(super) fn signer(&self, wanted: &SignerRef) -> Option<&NewSigner> {
        self.signers
            .iter()
            .find(|signer| SignerRef::new(&self.id, &signer.email) == *wanted)
    }

    pub(super) fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// The undecided signers whose turn it is: those with the lowest order among the undecided, and those
    /// without an order.
    pub(super) fn due<'e>(&'e self, decisions: &Decisions) -> Vec<&'e NewSigner> {
        let open = |signer: &&NewSigner| decisions.of(self, &signer.email).is_none();
        let turn = self
            .signers
            .iter()
            .filter(open)
            .filter_map(|s| s.order)
            .min();
        self.signers
            .iter()
            .filter(open)
            .filter(|signer| signer.order.is_none() || signer.order == turn)
            .collect()
    }
}

/// The decisions on one envelope, by the signer's key.
#[derive(Debug, Clone, Default)]
pub(super) struct Decisions(HashMap<String, Decision>);

impl Decisions {
    pub(super) fn of(&self, envelope: &Envelope, email: &str) -> Option<&Decision> {
        self.0.get(&SignerRef::new(&envelope.id, email).signer)
    }

    pub(super) fn all_signed(&self, envelope: &Envelope) -> bool {
        envelope.signers.iter().all(|signer| {
            let decision = self.of(envelope, &signer.email);
            decision.is_some_and(|decision| decision.kind == DecisionKind::Signed)
        })
    }

    pub(super) fn any_declined(&self) -> bool {
        let mut kinds = self.0.values().map(|decision| decision.kind);
        kinds.any(|kind| kind == DecisionKind::Declined)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Desk {
    pub(super) async fn envelope(&self, id: &str) -> Result<Option<Envelope>, FilesError> {
        self.0.files.record(RecordKind::Envelope, id).await
    }

    pub(super) async fn put_envelope(&self, envelope: &Envelope) -> Result<(), FilesError> {
        let files = &self.0.files;
        files
            .put_record(RecordKind::Envelope, &envelope.id, envelope)
            .await
    }

    pub(super) async fn decisions(&self, envelope: &Envelope) -> Result<Decisions, FilesError> {
        let mut decisions = HashMap::new();
        for signer in &envelope.signers {
            let signer = SignerRef::new(&envelope.id, &signer.email);
            if let Some(decision) = self.decision(&signer).await? {
                decisions.insert(signer.signer, decision);
            }
        }
        Ok(Decisions(decisions))
    }

    pub(super) async fn decision(
        &self,
        signer: &SignerRef,
    ) -> Result<Option<Decision>, FilesError> {
        let files = &self.0.files;
        files
            .record(RecordKind::Decision, &signer.record_name())
            .await
    }

    /// Stores a signer's decision, unless one is already stored. Returns true if this decision was stored.
    pub(super) async fn decide(
        &self,
        signer: &SignerRef,
        decision: &Decision,
    ) -> Result<bool, FilesError> {
        let files = &self.0.files;
        files
            .create_record(RecordKind::Decision, &signer.record_name(), decision)
            .await
    }

    /// Records that a signer has viewed the document. Returns true for the signer's first view.
    pub(super) async fn view(&self, signer: &SignerRef, at: Timestamp) -> Result<bool, FilesError> {
        let files = &self.0.files;
        files
            .create_record(RecordKind::Viewed, &signer.record_name(), &at)
            .await
    }

    pub(super) async fn viewed_at(
        &self,
        signer: &SignerRef,
    ) -> Result<Option<Timestamp>, FilesError> {
        let files = &self.0.files;
        files
            .record(RecordKind::Viewed, &signer.record_name())
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(signers: &[(&str, Option<u32>)]) -> Envelope {
        let signers = signers.iter().map(|(email, order)| {
            let mut signer = NewSigner::new(*email);
            signer.order = *order;
            signer
        });
        Envelope {
            id: "ab".repeat(16),
            organization_id: OrganizationId::new(),
            execution_id: None,
            document: Document {
                path: String::new(),
                filename: "a.pdf".to_owned(),
                title: None,
                content_type: String::new(),
                bytes: 0,
                sha256: String::new(),
                language: None,
            },
            signers: signers.collect(),
            message: None,
            expires_at: None,
            remind_every_ms: None,
            created_at: Timestamp::from_millis(0),
            invited: false,
        }
    }

    fn signed(envelope: &Envelope, emails: &[&str]) -> Decisions {
        let decision = Decision {
            kind: DecisionKind::Signed,
            at: Timestamp::from_millis(1),
            name: None,
            reason: None,
        };
        let key = |email: &&str| SignerRef::new(&envelope.id, email).signer;
        Decisions(
            emails
                .iter()
                .map(|email| (key(email), decision.clone()))
                .collect(),
        )
    }

    fn due(envelope: &Envelope, signed_by: &[&str]) -> Vec<String> {
        let due = envelope.due(&signed(envelope, signed_by));
        due.into_iter().map(|signer| signer.email.clone()).collect()
    }

    #[test]
    fn without_an_order_all_are_asked_at_once() {
        let envelope = envelope(&[("a@x.example", None), ("b@x.example", None)]);
        assert_eq!(due(&envelope, &[]), ["a@x.example", "b@x.example"]);
        assert_eq!(due(&envelope, &["a@x.example"]), ["b@x.example"]);
    }

    #[test]
    fn a_later_turn_waits_until_all_of_the_earlier_one_have_signed() {
        let envelope = envelope(&[
            ("late@x.example", Some(2)),
            ("first@x.example", Some(1)),
            ("second@x.example", Some(1)),
            ("any@x.example", None),
        ]);
        let first = ["first@x.example", "second@x.example", "any@x.example"];
        assert_eq!(due(&envelope, &[]), first);
        assert_eq!(
            due(&envelope, &["first@x.example", "any@x.example"]),
            ["second@x.example"]
        );
        assert_eq!(due(&envelope, &first), ["late@x.example"]);
        let decisions = signed(&envelope, &[&first[..], &["late@x.example"]].concat());
        assert!(decisions.all_signed(&envelope) && envelope.due(&decisions).is_empty());
    }
}
