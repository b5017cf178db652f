//! The provider's webhook reports to docg, with a signature over the raw bytes of the body.

use docg_core::{
    json,
    signature::{ProviderUpdate, SignerFact, SignerFactKind, WebhookError, WebhookRequest},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use super::secret::{Purpose, Secret};

/// The header whose value is `sha256=` and the HMAC-SHA256 of the raw body in hexadecimal digits.
pub(super) const HEADER: &str = "x-docg-signature";

/// The body of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Report {
    /// The event: `signer.viewed`, `signer.signed` or `signer.declined`.
    pub(super) event: String,
    /// The id of the report. It is the same in every delivery of that report.
    pub(super) delivery_id: String,
    pub(super) envelope_id: String,
    pub(super) signer_email: String,
    pub(super) at: Timestamp,
    pub(super) reason: Option<String>,
}

/// The value of [`HEADER`] for a body.
pub(super) fn signature(secret: &Secret, body: &[u8]) -> String {
    format!(
        "sha256={}",
        hex::encode(secret.sign(Purpose::Webhook, body))
    )
}

/// Verifies the signature of a webhook and reads its report.
pub(super) fn read(
    secret: &Secret,
    request: &WebhookRequest,
) -> Result<ProviderUpdate, WebhookError> {
    let given = request
        .header(HEADER)
        .ok_or(WebhookError::Unauthenticated)?;
    let given = given
        .strip_prefix("sha256=")
        .ok_or(WebhookError::Unauthenticated)?;
    let given = hex::decode(given).map_err(|_| WebhookError::Unauthenticated)?;
    if !secret.verifies(Purpose::Webhook, &request.body, &given) {
        return Err(WebhookError::Unauthenticated);
    }
    let report: Report =
        json::read_message(&request.body).map_err(|e| WebhookError::Malformed(e.to_string()))?;
    let kind = match report.event.as_str() {
        "signer.viewed" => Some(SignerFactKind::Viewed),
        "signer.signed" => Some(SignerFactKind::Signed),
        "signer.declined" => Some(SignerFactKind::Declined),
        // An event from a later version of this program: accept and ignore it.
        _ => None,
    };
    let facts = kind.map(|kind| SignerFact {
        email: Some(report.signer_email),
        kind,
        at: report.at,
        reason: report.reason,
    });
    Ok(ProviderUpdate {
        envelope_id: facts.is_some().then_some(report.envelope_id),
        dedupe_key: report.delivery_id,
        facts: facts.into_iter().collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(event: &str) -> Vec<u8> {
        let report = Report {
            event: event.to_owned(),
            delivery_id: "d1".to_owned(),
            envelope_id: "e1".to_owned(),
            signer_email: "signer@example.com".to_owned(),
            at: Timestamp::from_millis(1_000),
            reason: None,
        };
        serde_json::to_vec(&report).unwrap()
    }

    fn request(headers: &[(&str, String)], body: Vec<u8>) -> WebhookRequest {
        let headers = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()));
        WebhookRequest {
            headers: headers.collect(),
            body,
        }
    }

    #[test]
    fn a_signed_report_becomes_a_fact() {
        let secret = Secret::fixed(1);
        let body = report("signer.signed");
        let update = read(
            &secret,
            &request(&[(HEADER, signature(&secret, &body))], body),
        )
        .unwrap();
        assert_eq!(update.envelope_id.as_deref(), Some("e1"));
        assert_eq!(update.dedupe_key, "d1");
        let fact = SignerFact::signed("signer@example.com", Timestamp::from_millis(1_000));
        assert_eq!(update.facts, [fact]);
    }

    #[test]
    fn an_event_of_an_unknown_kind_is_taken_in_without_facts() {
        let secret = Secret::fixed(1);
        let body = report("signer.winked");
        let update = read(
            &secret,
            &request(&[(HEADER, signature(&secret, &body))], body),
        )
        .unwrap();
        assert!(update.facts.is_empty() && update.envelope_id.is_none());
    }

    #[test]
    fn nothing_is_read_without_the_right_signature() {
        let secret = Secret::fixed(1);
        let body = report("signer.signed");
        let right = signature(&secret, &body);
        let mut longer = body.clone();
        longer.push(b' ');
        let wrong = [
            request(&[], body.clone()),
            request(&[(HEADER, right.clone())], longer),
            request(
                &[(HEADER, right.trim_start_matches("sha256=").to_owned())],
                body.clone(),
            ),
            request(&[(HEADER, right[..40].to_owned())], body.clone()),
            request(&[(HEADER, "sha256=".to_owned())], body.clone()),
            request(
                &[(HEADER, right.clone()), (HEADER, right.clone())],
                body.clone(),
            ),
            request(
                &[(HEADER, signature(&Secret::fixed(2), &body))],
                body.clone(),
            ),
        ];
        for request in wrong {
            assert!(
                matches!(read(&secret, &request), Err(WebhookError::Unauthenticated)),
                "{request:?}"
            );
        }
    }

    #[test]
    fn a_signed_body_that_is_no_report_is_malformed() {
        let secret = Secret::fixed(1);
        let body = b"[]".to_vec();
        let request = request(&[(HEADER, signature(&secret, &body))], body);
        assert!(matches!(
            read(&secret, &request),
            Err(WebhookError::Malformed(_))
        ));
    }
}
