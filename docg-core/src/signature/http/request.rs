use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

use crate::signature::{EnvelopeRequest, NewSigner};

/// Names a request at its provider: the same in every attempt, and in no other request.
pub(in crate::signature) fn mark_of(request: &EnvelopeRequest) -> String {
    let mut hasher = Sha256::new();
    hasher.update(b"docg.signature.v1\0");
    hasher.update(request.organization_id.0.as_bytes());
    hasher.update(&request.idempotency_key);
    hex::encode(&hasher.finalize()[..10])
}

/// The signers with their turns, counted from 1 without a hole. Who has none is asked at once; where
/// nobody has one there are no turns.
pub(in crate::signature) fn turns(
    signers: &[NewSigner],
) -> impl Iterator<Item = (&NewSigner, Option<usize>)> {
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
    fn turns_are_counted_without_holes() {
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
