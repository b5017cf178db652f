use docg_core::{actions::ActionCatalogue, i18n::Locale, preflight::Domain};
use serde_json::json;

use super::*;
use crate::testing::Scripted;

fn api(client: Scripted) -> Api {
    let (url, example) = ("https://api.example/base/", "https://api.example");
    let (token, secret) = (Secret::new("t0ken\n"), Secret::new("k3y"));
    let config = ApiConfig::new(url, example, token, secret, &["files.example"]);
    let config = config.expect("valid");
    Api {
        authorization: config.token.clone(),
        config,
        client: Arc::new(client),
        media_type: "application/json",
    }
}

async fn failure(status: u16, once: bool) -> ProviderError {
    let api = api(Scripted::default().answer(status, "no\n<b>t0ken</b> k3y"));
    let path = ["docs"];
    let mut call = Call::send(Method::Post, &path, json!({}));
    call.once = once;
    api.tell(call).await.expect_err("a failure").error
}

#[tokio::test]
async fn a_call_extends_the_base_url_and_carries_the_token() {
    let client = Scripted::default().answer(200, "{}");
    let sent = client.sent();
    let path = ["docs", "a/b"];
    let call = Call::get(&path).query(&[("filter[name]", "a b&c")]);
    api(client).tell(call).await.expect("well");
    let sent = sent.lock().expect("not poisoned");
    assert_eq!(
        sent[0].url,
        "https://api.example/base/docs/a%2Fb?filter%5Bname%5D=a+b%26c"
    );
    assert!(
        sent[0]
            .headers
            .contains(&("authorization", "t0ken".to_owned()))
    );
    assert!(!format!("{:?}", sent[0]).contains("t0ken"));
}

#[tokio::test]
async fn an_errors_kind_depends_on_the_status_and_on_whether_a_repetition_does_harm() {
    use ProviderError as E;
    assert!(matches!(failure(401, true).await, E::Unauthorized(_)));
    assert!(matches!(failure(402, true).await, E::Unpaid(_)));
    assert!(matches!(failure(403, false).await, E::Forbidden(_)));
    assert!(matches!(failure(410, true).await, E::NotFound(_)));
    assert!(matches!(failure(422, true).await, E::Refused(_)));
    assert!(matches!(failure(302, true).await, E::Refused(_)));
    assert!(matches!(failure(503, true).await, E::Unavailable(_)));
    assert!(matches!(failure(500, true).await, E::Unknown(_)));
    assert!(matches!(failure(504, false).await, E::Unavailable(_)));
    let E::NotFound(tech) = failure(404, false).await else {
        panic!("not found")
    };
    assert_eq!(tech, "POST /docs: 404 no <b>***</b> ***");
}

#[tokio::test]
async fn only_a_refused_request_asks_to_fix_the_signers() {
    for (status, action) in [
        (401, "update_api_key"),
        (402, "add_credits"),
        (403, "update_api_key"),
        (404, "reconnect_provider"),
        (422, "fix_signers"),
    ] {
        let failure = failure(status, true).await.into_failure("zapsign", "Sign");
        let known = ActionCatalogue::default();
        let actions = known.for_error(&failure.context, Domain::Signature, None);
        assert_eq!(actions[0].action, action, "{status}");
        let human = failure.context.human.render(Locale::En);
        assert_eq!(human.contains("the signers"), status == 422, "{human}");
    }
}

#[tokio::test]
async fn a_lost_answer_is_an_unknown_outcome_only_if_a_repetition_does_harm() {
    use ProviderError as E;
    let outcome = async |once: bool, error: HttpError| {
        let path = ["docs"];
        let mut call = Call::send(Method::Post, &path, json!({}));
        call.once = once;
        let api = api(Scripted::default().fail(error));
        api.tell(call).await.expect_err("a failure").error
    };
    let [down, late, cut] = [
        HttpError::Unreachable("dns".to_owned()),
        HttpError::TimedOut("15 s".to_owned()),
        HttpError::Broken("reset".to_owned()),
    ];
    assert!(matches!(outcome(true, down).await, E::Unavailable(_)));
    assert!(matches!(outcome(true, late.clone()).await, E::Unknown(_)));
    assert!(matches!(outcome(false, late).await, E::TimedOut(_)));
    assert!(matches!(outcome(true, cut.clone()).await, E::Unknown(_)));
    assert!(matches!(outcome(false, cut).await, E::Unavailable(_)));
    let garbage = api(Scripted::default().answer(200, "<html>"));
    let path = ["docs"];
    let read = garbage.call::<Value>(Call::get(&path)).await;
    assert!(matches!(
        read.expect_err("garbage").error,
        E::Unavailable(_)
    ));
}

#[tokio::test]
async fn documents_are_downloaded_only_from_known_hosts_and_without_the_token() {
    for link in [
        "http://files.example/x",
        "https://evil.example/x",
        "https://notfiles.example/x",
        "https://files.example.evil.example/x",
        "https://169.254.169.254/x",
        "nothing",
    ] {
        let refused = api(Scripted::default()).download(link).await;
        assert!(matches!(refused, Err(ProviderError::Refused(_))), "{link}");
    }
    for link in [
        "https://files.example/x?sig=1",
        "https://eu.files.example/x",
        "https://api.example/x",
    ] {
        let client = Scripted::default().answer(200, "%PDF-1.7");
        let sent = client.sent();
        let document = api(client).download(link).await.expect(link);
        assert_eq!(document, b"%PDF-1.7");
        assert!(sent.lock().expect("not poisoned")[0].headers.is_empty());
    }
}

#[tokio::test]
async fn a_download_that_is_no_pdf_is_refused() {
    let page = api(Scripted::default().answer(200, "<html>"));
    let read = page.download("https://files.example/x").await;
    assert!(
        matches!(read, Err(ProviderError::Unavailable(_))),
        "{read:?}"
    );
}

#[test]
fn retry_after_gives_seconds_or_a_date_within_an_hour() {
    assert_eq!(wait_ms("120"), Some(120_000));
    assert_eq!(wait_ms("Wed, 21 Oct 2015 07:28:00 GMT"), Some(0));
    assert_eq!(wait_ms("soon"), None);
    assert_eq!(wait_ms("99999999999999999999"), Some(LONGEST_WAIT_MS));
}
