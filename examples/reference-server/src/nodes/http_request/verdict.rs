//! Decides how an HTTP call fails its step, by the status of the answer or by the error without an answer.

use std::error::Error;

use docg_core::error::{FailureClass, codes};
use reqwest::StatusCode;

/// The failure that a call causes in its step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) class: FailureClass,
    pub(super) code: &'static str,
    /// The key of the text for people.
    pub(super) text: &'static str,
    /// The parameter that a person has to check.
    pub(super) field: &'static str,
}

const fn verdict(
    class: FailureClass,
    code: &'static str,
    text: &'static str,
    field: &'static str,
) -> Verdict {
    Verdict {
        class,
        code,
        text,
        field,
    }
}

use FailureClass::{OutcomeUnknown, Retryable, Review};

const UNREACHABLE: Verdict = verdict(
    Retryable,
    codes::CONNECTION_ERROR,
    "issue-service-unavailable",
    "url",
);
const BUSY: Verdict = verdict(
    Retryable,
    codes::SERVICE_UNAVAILABLE,
    "issue-service-unavailable",
    "url",
);
const SLOW_DOWN: Verdict = verdict(Retryable, codes::RATE_LIMIT, "issue-rate-limit", "url");
const UNKNOWN: Verdict = verdict(
    OutcomeUnknown,
    codes::OUTCOME_UNKNOWN,
    "error-outcome-unknown",
    "url",
);
const NO_HOST: Verdict = verdict(Review, "host_not_found", "issue-host-not-found", "url");
const CERTIFICATE: Verdict = verdict(
    Review,
    "certificate_invalid",
    "issue-certificate-invalid",
    "url",
);
const KEY: Verdict = verdict(
    Review,
    codes::API_KEY_INVALID,
    "issue-api-key-invalid",
    "headers",
);
const REDIRECT: Verdict = verdict(
    Review,
    "redirect_not_followed",
    "issue-redirect-not-followed",
    "url",
);
/// The called server wants credentials, and the call has none.
const NO_KEY: Verdict = Verdict {
    text: "issue-credentials-missing",
    ..KEY
};
const FORBIDDEN: Verdict = verdict(
    Review,
    codes::CALL_FORBIDDEN,
    "issue-call-forbidden",
    "headers",
);
/// The called server forbids the call, which has no credentials.
const FORBIDDEN_TO_STRANGERS: Verdict = Verdict {
    text: "issue-call-forbidden-to-strangers",
    ..FORBIDDEN
};
const REFUSED: Verdict = verdict(
    Review,
    codes::INVALID_FIELD_FORMAT,
    "issue-call-refused",
    "url",
);

/// A redirect without an address, such as a 304 to a request without a condition.
pub(super) const LEADS_NOWHERE: Verdict = Verdict {
    text: "issue-redirect-without-address",
    ..REFUSED
};

/// The verdict on a status. `None` if it is a success. A redirect is a failure: it is not followed, so the
/// call did nothing.
pub(super) fn of_status(
    status: StatusCode,
    is_idempotent: bool,
    has_credentials: bool,
) -> Option<Verdict> {
    Some(match status.as_u16() {
        0..=299 => return None,
        300..=399 => REDIRECT,
        401 | 407 if has_credentials => KEY,
        401 | 407 => NO_KEY,
        403 if has_credentials => FORBIDDEN,
        403 => FORBIDDEN_TO_STRANGERS,
        // With 429, 425 and 503, the called server has not acted on the call.
        429 => SLOW_DOWN,
        425 | 503 => BUSY,
        // The called server lacks a feature; a retry does not help.
        501 | 505 | 506 | 508 | 510 | 511 => REFUSED,
        408 | 500.. if is_idempotent => BUSY,
        408 | 500.. => UNKNOWN,
        _ => REFUSED,
    })
}

/// The verdict on a call without a complete answer. `is_sent` is true if the request may have arrived.
pub(super) fn of_silence(
    error: &(dyn Error + 'static),
    is_sent: bool,
    is_idempotent: bool,
) -> Verdict {
    if causes(error).any(|cause| {
        matches!(
            cause.downcast_ref(),
            Some(rustls::Error::InvalidCertificate(_))
        )
    }) {
        return CERTIFICATE;
    }
    if is_sent && !is_idempotent {
        return UNKNOWN;
    }
    UNREACHABLE
}

/// The verdict on a host name that was not resolved. Only the text of the system's error tells that there is
/// no such host.
pub(super) fn of_name(error: &std::io::Error) -> Verdict {
    let text = error.to_string();
    let none = [
        "Name or service not known",
        "No address associated",
        "nodename nor servname",
    ];
    if none.iter().any(|words| text.contains(words)) {
        NO_HOST
    } else {
        UNREACHABLE
    }
}

/// An error and its causes, including those inside an I/O error.
fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'e (dyn Error + 'static)| {
        let error = *error;
        let inside = error.downcast_ref::<std::io::Error>();
        match inside.and_then(std::io::Error::get_ref) {
            Some(inside) => Some(inside as &(dyn Error + 'static)),
            None => error.source(),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn only_what_may_go_better_by_itself_is_tried_again() {
        let table: [(u16, Option<Verdict>, Option<Verdict>); 34] = [
            (200, None, None),
            (204, None, None),
            (300, Some(REDIRECT), Some(REDIRECT)),
            (301, Some(REDIRECT), Some(REDIRECT)),
            (302, Some(REDIRECT), Some(REDIRECT)),
            (303, Some(REDIRECT), Some(REDIRECT)),
            (304, Some(REDIRECT), Some(REDIRECT)),
            (307, Some(REDIRECT), Some(REDIRECT)),
            (308, Some(REDIRECT), Some(REDIRECT)),
            (400, Some(REFUSED), Some(REFUSED)),
            (401, Some(KEY), Some(KEY)),
            (403, Some(FORBIDDEN), Some(FORBIDDEN)),
            (404, Some(REFUSED), Some(REFUSED)),
            (405, Some(REFUSED), Some(REFUSED)),
            (407, Some(KEY), Some(KEY)),
            (408, Some(BUSY), Some(UNKNOWN)),
            (409, Some(REFUSED), Some(REFUSED)),
            (410, Some(REFUSED), Some(REFUSED)),
            (412, Some(REFUSED), Some(REFUSED)),
            (413, Some(REFUSED), Some(REFUSED)),
            (415, Some(REFUSED), Some(REFUSED)),
            (418, Some(REFUSED), Some(REFUSED)),
            (422, Some(REFUSED), Some(REFUSED)),
            (425, Some(BUSY), Some(BUSY)),
            (429, Some(SLOW_DOWN), Some(SLOW_DOWN)),
            (451, Some(REFUSED), Some(REFUSED)),
            (500, Some(BUSY), Some(UNKNOWN)),
            (501, Some(REFUSED), Some(REFUSED)),
            (502, Some(BUSY), Some(UNKNOWN)),
            (503, Some(BUSY), Some(BUSY)),
            (504, Some(BUSY), Some(UNKNOWN)),
            (505, Some(REFUSED), Some(REFUSED)),
            (507, Some(BUSY), Some(UNKNOWN)),
            (599, Some(BUSY), Some(UNKNOWN)),
        ];
        for (status, idempotent, other) in table {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(of_status(status, true, true), idempotent, "{status}");
            assert_eq!(of_status(status, false, true), other, "{status}");
            let without_key = |it: Option<Verdict>| match it {
                Some(KEY) => Some(NO_KEY),
                Some(FORBIDDEN) => Some(FORBIDDEN_TO_STRANGERS),
                it => it,
            };
            assert_eq!(of_status(status, true, false), without_key(idempotent));
            assert_eq!(of_status(status, false, false), without_key(other));
        }
    }

    #[test]
    fn a_call_without_an_answer_is_judged_by_its_cause() {
        let certificate = rustls::Error::InvalidCertificate(rustls::CertificateError::Expired);
        let certificate = io::Error::other(io::Error::other(certificate));
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        for is_idempotent in [true, false] {
            assert_eq!(of_silence(&certificate, false, is_idempotent), CERTIFICATE);
            assert_eq!(of_silence(&reset, false, is_idempotent), UNREACHABLE);
        }
        assert_eq!(of_silence(&reset, true, true), UNREACHABLE);
        assert_eq!(of_silence(&reset, true, false), UNKNOWN);
        for (text, expected) in [
            (
                "failed to lookup address information: Name or service not known",
                NO_HOST,
            ),
            (
                "failed to lookup address information: Temporary failure in name resolution",
                UNREACHABLE,
            ),
            ("too many open files", UNREACHABLE),
        ] {
            assert_eq!(of_name(&io::Error::other(text)), expected, "{text}");
        }
    }
}
