use std::collections::BTreeSet;

use docg_core::signature::{EnvelopeRequest, NewSigner};
use sha2::{Digest, Sha256};

/// A request's mark, by which later attempts find its envelope at the vendor. It is the same in every
/// attempt, and no other request has it.
pub(crate) fn mark_of(request: &EnvelopeRequest) -> String {
    let mut hasher = Sha256::new();
    hasher.update(b"docg.signature.v1\0");
    hasher.update(request.organization_id.0.as_bytes());
    hasher.update(&request.idempotency_key);
    hex::encode(&hasher.finalize()[..10])
}

/// The signers with their turns, numbered from 1 without gaps. A signer without an order gets the first turn.
/// If no signer has an order, there are no turns.
pub(crate) fn turns(signers: &[NewSigner]) -> impl Iterator<Item = (&NewSigner, Option<usize>)> {
    let orders: BTreeSet<_> = signers.iter().filter_map(|signer| signer.order).collect();
    signers.iter().map(move |signer| {
        let turn = signer
            .order
            .map_or(1, |order| orders.range(..=order).count());
        (signer, (!orders.is_empty()).then_some(turn))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_numbered_without_gaps() {
        let signers = |orders: &[Option<u32>]| -> Vec<NewSigner> {
            let signer = |order: &Option<u32>| NewSigner {
                order: *order,
                ..NewSigner::new("a@example.com")
            };
            orders.iter().map(signer).collect()
        };
        let turns_of = |orders: &[Option<u32>]| -> Vec<_> {
            turns(&signers(orders)).map(|(_, turn)| turn).collect()
        };
        assert_eq!(turns_of(&[None, None]), [None, None]);
        assert_eq!(
            turns_of(&[Some(7), Some(2), None, Some(7)]),
            [Some(2), Some(1), Some(1), Some(2)]
        );
    }
}
