use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::{
    ids::{ExecutionId, NodeId, OrganizationId, SignatureRequestId},
    signature::{FollowUp, Signer},
};

const EMAILS: [&str; 3] = ["a@example.com", "b@example.com", "c@example.com"];

fn request() -> SignatureRequest {
    let signer = |email: &str| Signer {
        email: email.to_owned(),
        name: None,
        order: None,
        status: SignerStatus::Pending,
        viewed_at: None,
        signed_at: None,
        declined_at: None,
        reason: None,
    };
    SignatureRequest {
        id: SignatureRequestId(uuid::Uuid::nil()),
        execution_id: ExecutionId(uuid::Uuid::nil()),
        organization_id: OrganizationId(uuid::Uuid::nil()),
        node_id: NodeId::from("sign"),
        provider: "desk".to_owned(),
        envelope_id: "envelope".to_owned(),
        status: RequestStatus::Signing,
        signers: EMAILS.map(signer).into(),
        file: Value::Null,
        created_at: Timestamp::from_millis(0),
        expires_at: None,
        completed_at: None,
        details: Value::Null,
        follow_up: FollowUp::default(),
        unreadable: false,
    }
}

fn facts() -> impl Strategy<Value = Vec<SignerFact>> {
    use SignerFactKind::{Bounced, Canceled, Declined, Expired, Signed, Viewed};
    // Mostly facts about single signers; now and then a fact that ends the whole request.
    let kinds = prop::sample::select(vec![
        Viewed, Viewed, Signed, Signed, Signed, Declined, Bounced, Expired, Canceled,
    ]);
    let emails = prop::sample::select(vec![
        Some("a@example.com"),
        Some("B@EXAMPLE.com"),
        Some("c@example.com"),
        Some("stranger@example.com"),
        None,
    ]);
    let reasons = prop::sample::select(vec![None, Some("too long"), Some("wrong name")]);
    let fact = (emails, kinds, 0_i64..9, reasons).prop_map(|(email, kind, at, reason)| {
        let reason = reason.filter(|_| kind == Declined);
        SignerFact {
            email: email.map(str::to_owned),
            kind,
            at: Timestamp::from_millis(at),
            reason: reason.map(str::to_owned),
        }
    });
    prop::collection::vec(fact, 0..12)
}

/// Merges the reports in order, and checks after each that no signer's status went back and no ended request
/// is open again.
fn merged(reports: &[Vec<SignerFact>]) -> SignatureRequest {
    let mut request = request();
    for report in reports {
        let before = request.clone();
        let changes = merge(&mut request, report);
        for (old, new) in before.signers.iter().zip(&request.signers) {
            assert!(new.status >= old.status, "{old:?} -> {new:?}");
            let risen = changes.iter().any(|change| change.email == new.email);
            assert_eq!(risen, new.status > old.status);
        }
        if before.status == RequestStatus::Signed {
            assert_eq!(request.status, RequestStatus::Signed);
        }
        if before.status != RequestStatus::Signing {
            assert_ne!(request.status, RequestStatus::Signing);
        }
    }
    request
}

/// A history of facts, and webhooks that each deliver one of these facts: in any order, some facts twice and
/// some never.
fn deliveries() -> impl Strategy<Value = (Vec<SignerFact>, Vec<Vec<SignerFact>>)> {
    facts().prop_flat_map(|history| {
        let again = history.iter().map(|fact| vec![fact.clone()]);
        let twice: Vec<_> = again.clone().chain(again).collect();
        let most = twice.len();
        let delivered = prop::sample::subsequence(twice, 0..=most).prop_shuffle();
        (Just(history), delivered)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_024, ..ProptestConfig::default() })]

    #[test]
    fn any_order_any_repeat_and_any_loss_end_in_the_same_state(
        (history, delivered) in deliveries(),
        asked_at in any::<prop::sample::Index>(),
    ) {
        let all_at_once = merged(std::slice::from_ref(&history));
        let one_by_one: Vec<_> = history.iter().map(|fact| vec![fact.clone()]).collect();
        prop_assert_eq!(&merged(&one_by_one), &all_at_once);
        let mut reports = delivered;
        let place = asked_at.index(reports.len() + 1);
        reports.insert(place, history);
        prop_assert_eq!(&merged(&reports), &all_at_once);
    }
}

#[test]
fn who_has_signed_has_signed_whatever_is_reported_later() {
    let at = Timestamp::from_millis(1);
    let signed = EMAILS.map(|email| SignerFact::signed(email, at));
    let later = [
        SignerFactKind::Viewed,
        SignerFactKind::Declined,
        SignerFactKind::Expired,
        SignerFactKind::Canceled,
    ]
    .map(|kind| SignerFact::of_all(kind, at));
    let request = merged(&[signed.into(), later.into()]);
    assert_eq!(request.status, RequestStatus::Signed);
}

#[test]
fn a_stranger_is_not_added_to_the_signers() {
    let fact = SignerFact::signed("stranger@example.com", Timestamp::from_millis(1));
    assert_eq!(merged(&[vec![fact]]), request());
}

#[test]
fn a_report_finds_its_signer_however_the_address_is_spelled() {
    for (known, told) in [
        ("ana@exämple.com", "ana@xn--exmple-cua.com"),
        ("ana@xn--exmple-cua.com", "Ana@EXÄMPLE.com."),
        ("Ana@Example.com", " ana@example.COM "),
    ] {
        let mut request = request();
        request.signers.truncate(1);
        request.signers[0].email = known.to_owned();
        let fact = SignerFact::signed(told, Timestamp::from_millis(1));
        let changes = merge(&mut request, &[fact]);
        assert_eq!(request.status, RequestStatus::Signed, "{told}");
        assert_eq!(changes[0].email, known, "the trail has it as it was given");
        let stranger = SignerFact::signed("ana@example.org", Timestamp::from_millis(1));
        assert!(merge(&mut request, &[stranger]).is_empty());
    }
}

#[test]
fn a_change_tells_the_moment_that_stays() {
    let mut request = request();
    let moment = Timestamp::from_millis;
    let facts = [
        SignerFact::signed(EMAILS[0], moment(5)),
        SignerFact::of_all(SignerFactKind::Signed, moment(3)),
    ];
    let changes = merge(&mut request, &facts);
    assert_eq!(changes.len(), 3);
    for change in changes {
        let mut signers = request.signers.iter();
        let signer = signers.find(|signer| signer.email == change.email);
        assert_eq!(signer.and_then(|it| it.signed_at), Some(change.at));
    }
}
