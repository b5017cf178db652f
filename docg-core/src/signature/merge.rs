use super::{
    provider::{SignerFact, SignerFactKind},
    request::{RequestStatus, SignatureRequest, SignerStatus},
};
use crate::{
    address::{AddressKey, is_same},
    time::Timestamp,
};

/// A change of a signer's status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignerChange {
    /// The signer's address.
    pub email: String,
    /// The signer's new status.
    pub status: SignerStatus,
    /// When the status changed, by the provider's clock.
    pub at: Timestamp,
    /// The reason, for a refusal.
    pub reason: Option<String>,
}

/// Merges facts into a request and returns the signers' changes.
///
/// Monotone: a signer's status only rises in the order of [`SignerStatus`], so duplicates change nothing and
/// any order of arrival ends in the same state. If two facts of one kind have different times, the earlier
/// time stays. Facts about addresses that are not among the signers are ignored. A refusal without an address
/// ends the request and is recorded for no signer.
pub fn merge(request: &mut SignatureRequest, facts: &[SignerFact]) -> Vec<SignerChange> {
    let mut changes = Vec::new();
    for fact in facts {
        let status = match fact.kind {
            SignerFactKind::Viewed => SignerStatus::Viewed,
            SignerFactKind::Signed => SignerStatus::Signed,
            SignerFactKind::Declined if fact.email.is_none() => continue,
            SignerFactKind::Declined => SignerStatus::Declined,
            SignerFactKind::Expired | SignerFactKind::Canceled => SignerStatus::Expired,
            SignerFactKind::Bounced => SignerStatus::Bounced,
            SignerFactKind::Unconfirmed => continue,
        };
        let whose = fact.email.as_deref().map(AddressKey::of);
        for signer in &mut request.signers {
            if whose
                .as_ref()
                .is_some_and(|key| *key != AddressKey::of(&signer.email))
            {
                continue;
            }
            let time = match fact.kind {
                SignerFactKind::Viewed => Some(&mut signer.viewed_at),
                SignerFactKind::Signed => Some(&mut signer.signed_at),
                SignerFactKind::Declined => Some(&mut signer.declined_at),
                SignerFactKind::Expired
                | SignerFactKind::Bounced
                | SignerFactKind::Canceled
                | SignerFactKind::Unconfirmed => None,
            };
            if let Some(time) = time {
                *time = Some(time.map_or(fact.at, |known| known.min(fact.at)));
            }
            if fact.kind == SignerFactKind::Declined {
                keep_reason(&mut signer.reason, fact.reason.as_ref());
            }
            if status > signer.status {
                signer.status = status;
                changes.push(SignerChange {
                    email: signer.email.clone(),
                    status,
                    at: fact.at,
                    reason: fact.reason.clone(),
                });
            }
        }
    }
    // If a report has a fact twice, with different times, the change gets the time stored for the signer.
    for change in &mut changes {
        let mut signers = request.signers.iter();
        let signer = signers.find(|signer| signer.email == change.email);
        let kept = signer.and_then(|signer| match change.status {
            SignerStatus::Viewed => signer.viewed_at,
            SignerStatus::Signed => signer.signed_at,
            SignerStatus::Declined => signer.declined_at,
            SignerStatus::Pending | SignerStatus::Expired | SignerStatus::Bounced => None,
        });
        change.at = kept.unwrap_or(change.at);
    }
    request.status = derived_status(request, facts);
    changes
}

/// Keeps the alphabetically first of the known and the reported reason, so that the order of arrival does not
/// matter.
fn keep_reason(known: &mut Option<String>, told: Option<&String>) {
    if let Some(told) = told
        && known.as_ref().is_none_or(|known| told < known)
    {
        *known = Some(told.clone());
    }
}

/// Derives the request's status from the facts and its status so far, so that the order of arrival does not
/// matter: all signatures win over everything, a refusal over a withdrawal, a withdrawal over an expiry.
fn derived_status(request: &SignatureRequest, facts: &[SignerFact]) -> RequestStatus {
    let is_signer = |email: &str| {
        let mut signers = request.signers.iter();
        signers.any(|signer| is_same(&signer.email, email))
    };
    let told = |kind, status| {
        let mut facts = facts.iter().filter(|fact| fact.kind == kind);
        request.status == status || facts.any(|fact| fact.email.as_deref().is_none_or(is_signer))
    };
    if request.all_signed() {
        RequestStatus::Signed
    } else if told(SignerFactKind::Declined, RequestStatus::Declined) {
        RequestStatus::Declined
    } else if told(SignerFactKind::Canceled, RequestStatus::Canceled) {
        RequestStatus::Canceled
    } else if told(SignerFactKind::Expired, RequestStatus::Expired) {
        RequestStatus::Expired
    } else {
        request.status
    }
}

#[cfg(test)]
mod tests;
