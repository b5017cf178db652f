//! The node types `send-email` and `approval` with a real SMTP server that accepts, rejects or does not
//! answer.

#[path = "support/mail_server.rs"]
mod mail_server;
mod support;

use docg_core::{
    approval::Decision,
    engine::{ControlRequest, Repair, VoteAnswer},
    i18n::Locale,
    observe::{Actor, LogLevel},
    ports::Settlement,
    query::LogQuery,
    run::Status,
};
use mail_server::MailServer;
use reference_server::mail::{Mailer, SmtpServer};
use serde_json::{Value, json};
use support::{Harness, Ran};

fn harness(url: &str) -> Harness {
    Harness::new(|files, _| {
        let server = SmtpServer::from_url(&url.parse().expect("a URL")).expect("an SMTP URL");
        Mailer::smtp(
            server,
            "docg <docg@example.com>".parse().expect("an address"),
            files.clone(),
        )
    })
}

fn nodes(to: Value, attachments: Value) -> Value {
    json!([{
        "id": "send", "type": "send-email",
        "params": {"to": to, "cc": "copy@example.com", "subject": "Contrato nº 7",
            "body": "Olá,\n.\nsegue o contrato.", "attachments": attachments},
        "retry": {"max_attempts": 3, "initial_ms": 10, "max_ms": 50, "multiplier": 2.0}
    }])
}

async fn send(harness: &Harness) -> Ran {
    harness
        .run(
            nodes(json!("recipient@example.com"), Value::Null),
            json!({}),
        )
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_arrives_with_its_attachment() {
    let server = MailServer::start(&[]);
    let harness = harness(&server.url());
    let document = harness.document(b"%PDF-1.7 the contract").await;
    let to = json!(["Recipient <recipient@example.com>", "second@example.com"]);
    let ran = harness.run(nodes(to, json!([document])), json!({})).await;
    assert_eq!(
        ran.status(),
        Status::Completed,
        "{} {}",
        ran.code(),
        ran.tech()
    );
    let mails = server.mails();
    assert_eq!(mails.len(), 1);
    let mail = &mails[0];
    assert!(mail.contains("X-MailFrom: docg@example.com"), "{mail}");
    assert!(
        mail.contains("X-RcptTo: recipient@example.com, second@example.com, copy@example.com"),
        "{mail}"
    );
    let output = ran.output("send");
    let message_id = output["message_id"].as_str().expect("a Message-ID");
    assert!(
        mail.contains(&format!("Message-ID: {message_id}")),
        "{mail}"
    );
    assert_eq!(
        output["accepted"],
        json!([
            "recipient@example.com",
            "second@example.com",
            "copy@example.com"
        ])
    );
    assert!(
        mail.contains("Contract 7.pdf") && mail.contains("application/pdf"),
        "{mail}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_recipient_goes_to_a_person_and_the_corrected_mail_arrives() {
    let server = MailServer::start(&["--refuse-recipient", "nobody@example.com"]);
    let harness = harness(&server.url());
    let to = json!(["recipient@example.com", "nobody@example.com"]);
    let ran = harness.run(nodes(to, Value::Null), json!({})).await;
    assert_eq!(ran.status(), Status::NeedsReview);
    assert_eq!(ran.code(), "smtp_refused");
    assert!(ran.tech().contains("nobody@example.com"), "{}", ran.tech());
    assert_eq!(ran.actions, ["fix_recipients"]);
    assert!(server.mails().is_empty(), "nobody gets half of it");

    let id = ran.record.execution.id;
    let request = ControlRequest::new(harness.organization, id, Actor::user("test"));
    let changes = Repair::default().param("send", "to", json!("recipient@example.com"));
    harness
        .engine
        .resume(request, changes.into())
        .await
        .expect("it goes on");
    let ended = harness.ended(id).await;
    assert_eq!(
        ended.status(),
        Status::Completed,
        "{} {}",
        ended.code(),
        ended.tech()
    );
    assert_eq!(server.mails().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_busy_is_tried_again() {
    let server = MailServer::start(&["--fail-first", "2"]);
    let harness = harness(&server.url());
    let ran = send(&harness).await;
    assert_eq!(
        ran.status(),
        Status::Completed,
        "{} {}",
        ran.code(),
        ran.tech()
    );
    assert_eq!(ran.steps[0].attempt, 3);
    assert_eq!(server.mails().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stays_busy_ends_it_with_the_reason() {
    let server = MailServer::start(&["--fail-first", "99"]);
    let harness = harness(&server.url());
    let ran = send(&harness).await;
    assert_eq!(
        (ran.status(), ran.code()),
        (Status::Failed, "service_unavailable")
    );
    assert!(ran.tech().contains("Try again later"), "{}", ran.tech());
    assert_eq!(ran.actions, ["retry"]);
}

fn asking(approvers: Value) -> Value {
    json!([{
        "id": "ok", "type": "approval", "phase": "save", "params": {"approvers": approvers},
        "retry": {"max_attempts": 3, "initial_ms": 10, "max_ms": 50, "multiplier": 2.0}
    }])
}

const ANN: &str = "ann@example.com";
const BEN: &str = "ben@example.com";
const CARL: &str = "carl@example.com";

#[tokio::test(flavor = "multi_thread")]
async fn approvers_are_written_to_once_though_another_s_address_has_to_be_corrected() {
    let server = MailServer::start(&["--fail-first", "1", "--refuse-recipient", BEN]);
    let harness = harness(&server.url());
    let ran = harness.run(asking(json!([ANN, BEN])), json!({})).await;
    assert_eq!(
        (ran.status(), ran.code()),
        (Status::NeedsReview, "smtp_refused"),
        "{}",
        ran.tech()
    );
    assert_eq!(ran.steps[0].attempt, 2, "the first one met a busy server");
    let id = ran.record.execution.id;
    let request = ControlRequest::new(harness.organization, id, Actor::user("test"));
    let corrected = Repair::default().param("ok", "approvers", json!([ANN, CARL]));
    harness
        .engine
        .resume(request, corrected.into())
        .await
        .expect("allowed");
    harness.until(id, |status| status == Status::Paused).await;
    let mails = server.mails();
    let to: Vec<_> = [ANN, CARL].map(|to| format!("X-RcptTo: {to}")).into();
    assert_eq!(
        mails
            .iter()
            .map(|mail| mail.lines().nth(1).unwrap_or_default())
            .collect::<Vec<_>>(),
        to
    );
    // The link in the first mail, sent before the correction, still works.
    let link = mails[0].lines().find(|line| line.contains("/approvals/"));
    let token = link.and_then(|link| link.trim().rsplit('/').next());
    let token = token.expect("a link on one line");
    let approve = Decision::Approved;
    let voted = harness.engine.vote(token, approve, None).await;
    assert!(matches!(voted, Ok(VoteAnswer::Counted(_))), "{voted:?}");
    assert_eq!(harness.ended(id).await.status(), Status::Completed);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_approver_is_written_to_once_where_no_answer_says_whether_the_mail_was_taken() {
    let server = MailServer::start(&["--close-on-data", "accepted"]);
    let harness = harness(&server.url());
    let approvers = asking(json!([ANN, BEN, CARL]));
    let id = harness.start(approvers, json!({}), false).await;
    let waits = |status: Status| status == Status::Paused || status.is_terminal();
    let ran = harness.until(id, waits).await;
    assert_eq!(ran.status(), Status::Paused, "{}", ran.tech());
    let mails = server.mails();
    let to: Vec<_> = mails
        .iter()
        .filter_map(|mail| mail.lines().nth(1))
        .collect();
    assert_eq!(to, [ANN, BEN, CARL].map(|to| format!("X-RcptTo: {to}")));
    let query = LogQuery::of(harness.organization, ran.record.execution.id).level(LogLevel::Warn);
    let logs = harness.engine.logs(query).await.expect("readable");
    let told = logs.items.iter();
    let told: Vec<_> = told.map(|it| it.message_human.render(Locale::En)).collect();
    for to in [ANN, BEN, CARL] {
        let unclear = format!("It is not known whether the mail server took the mail to {to}.");
        let told = told.iter().filter(|text| text.starts_with(&unclear));
        assert_eq!(told.count(), 1, "{to}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_of_a_mail_server_is_told_as_what_it_is() {
    const TO: &str = "recipient@example.com";
    const COPY: &str = "copy@example.com";
    let tries = |code, text: &'static str| (Status::Failed, 3, code, text);
    let final_ = |code, text: &'static str| (Status::NeedsReview, 1, code, text);
    for (answers, told) in [
        (
            vec![
                format!("{TO}=550 5.1.1 No such user"),
                format!("{COPY}=550 5.7.1 Not here"),
            ],
            final_("smtp_refused", "recipient@example.com, copy@example.com"),
        ),
        (
            vec![
                format!("{TO}=450 4.2.0 Greylisted"),
                format!("{COPY}=550 5.1.1 No such user"),
            ],
            final_("smtp_refused", "refuses copy@example.com."),
        ),
        (
            vec![format!("{TO}=552 5.2.2 Mailbox full")],
            final_("smtp_refused", TO),
        ),
        (
            vec![format!("{TO}=501 5.1.3 Bad address")],
            final_("invalid_email_format", TO),
        ),
        (
            vec![format!("{TO}=450 4.2.0 Greylisted, come back")],
            tries("service_unavailable", "later"),
        ),
        (
            vec![format!("{TO}=452 4.2.2 Mailbox full")],
            tries("service_unavailable", "later"),
        ),
        (
            vec!["mail=553 5.1.8 No such sender".to_owned()],
            final_("smtp_sender_refused", "docg@example.com"),
        ),
        (
            vec!["mail=451 4.3.0 Busy".to_owned()],
            tries("service_unavailable", "later"),
        ),
        (
            vec!["mail=552 5.3.4 Too big".to_owned()],
            final_("mail_too_large", "too large"),
        ),
        (
            vec!["mail=530 5.7.0 Sign in first".to_owned()],
            final_("smtp_auth_failed", "user or the password"),
        ),
        (
            vec!["data=552 5.3.4 Message too big".to_owned()],
            final_("mail_too_large", "too large"),
        ),
        (
            vec!["data=552 Message size exceeded".to_owned()],
            final_("mail_too_large", "too large"),
        ),
        (
            vec!["data=550 5.4.5 Daily quota exceeded".to_owned()],
            final_("smtp_quota", "takes no more mail"),
        ),
        (
            vec!["data=452 4.3.1 No room".to_owned()],
            tries("service_unavailable", "later"),
        ),
        (
            vec!["data=554 5.7.1 Looks like spam".to_owned()],
            final_("mail_refused", "refuses the mail"),
        ),
    ] {
        let options: Vec<_> = answers.iter().flat_map(|it| ["--answer", &**it]).collect();
        let server = MailServer::start(&options);
        let harness = harness(&server.url());
        let ran = send(&harness).await;
        let step = &ran.steps[0];
        let error = step.error.as_ref().expect("it failed");
        let human = error.human.render(Locale::En);
        let (status, attempts, code, text) = told;
        assert_eq!(
            (ran.status(), step.attempt, ran.code()),
            (status, attempts, code),
            "{answers:?}: {}",
            ran.tech()
        );
        assert!(human.contains(text), "{answers:?}: {human}");
        assert!(!error.human.render(Locale::PtBr).is_empty(), "{answers:?}");
        assert!(server.mails().is_empty(), "{answers:?}");
    }
    for (answer, (status, attempts, code, text)) in [
        (
            "535 5.7.8 Wrong",
            final_("smtp_auth_failed", "user or the password"),
        ),
        ("454 4.7.0 Not now", tries("service_unavailable", "later")),
    ] {
        let answer = format!("auth={answer}");
        let server = MailServer::start(&["--login", "docg:right", "--answer", &answer]);
        let port = server.port;
        let harness = harness(&format!("smtp://docg:wrong@127.0.0.1:{port}?tls=none"));
        let ran = send(&harness).await;
        let step = &ran.steps[0];
        assert_eq!(
            (ran.status(), step.attempt, ran.code()),
            (status, attempts, code),
            "{answer}: {}",
            ran.tech()
        );
        let error = step.error.as_ref().expect("it failed");
        let human = error.human.render(Locale::En);
        assert!(human.contains(text), "{answer}: {human}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_is_a_connection_error() {
    let port = docg_test_servers::ports::reserve();
    let harness = harness(&format!("smtp://127.0.0.1:{port}"));
    let ran = send(&harness).await;
    assert_eq!(
        (ran.status(), ran.code()),
        (Status::Failed, "connection_error")
    );
    assert_eq!(
        ran.steps[0].attempt, 3,
        "it may come back, so it is tried again"
    );
    assert!(
        ran.tech().to_lowercase().contains("refused"),
        "{}",
        ran.tech()
    );
    assert_eq!(ran.actions, ["reconnect_provider"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_to_sign_in_does_and_says_no_password_in_the_clear_unless_told_to() {
    let server = MailServer::start(&["--login", "desk+docs:p@ss"]);
    let url = |password: &str, more: &str| {
        format!(
            "smtp://desk+docs:{password}@127.0.0.1:{}{more}",
            server.port
        )
    };
    let ran = send(&harness(&url("p%40ss", "?tls=none"))).await;
    assert_eq!(ran.status(), Status::Completed, "{}", ran.tech());
    assert_eq!(server.mails().len(), 1);
    for (url, told) in [
        (url("wrong", "?tls=none"), "535"),
        (url("p%40ss", ""), "STARTTLS"),
    ] {
        let ran = send(&harness(&url)).await;
        assert_ne!(ran.status(), Status::Completed);
        assert!(ran.tech().contains(told), "{}", ran.tech());
        assert!(!ran.tech().contains("ss@"), "{}", ran.tech());
    }
    assert_eq!(server.mails().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn hanging_up_before_the_message_leaves_nothing_in_doubt() {
    let server = MailServer::start(&["--close-on-data", "command"]);
    let harness = harness(&server.url());
    let ran = send(&harness).await;
    assert_eq!(
        (ran.status(), ran.code()),
        (Status::Failed, "connection_error")
    );
    assert_eq!(ran.steps[0].attempt, 3);
    assert!(server.mails().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn hanging_up_after_the_message_is_left_to_a_person() {
    for (mode, arrived) in [("message", 0), ("accepted", 1)] {
        let server = MailServer::start(&["--close-on-data", mode]);
        let harness = harness(&server.url());
        let ran = send(&harness).await;
        assert_eq!(
            (ran.status(), ran.code()),
            (Status::NeedsReview, "outcome_unknown"),
            "{mode}"
        );
        assert_eq!(ran.steps[0].attempt, 1, "it is not sent twice");
        assert_eq!(ran.actions, ["confirm_done", "run_again"]);
        assert_eq!(server.mails().len(), arrived, "{mode}");

        let id = ran.record.execution.id;
        let request = ControlRequest::new(harness.organization, id, Actor::user("test"));
        let output = json!({"message_id": "<seen@example.com>", "accepted": []});
        let knows = Repair::default().settlement(Settlement::ConfirmDone(output));
        harness
            .engine
            .resume(request, knows.into())
            .await
            .expect("a person knows");
        assert_eq!(harness.ended(id).await.status(), Status::Completed);
        assert_eq!(
            server.mails().len(),
            arrived,
            "{mode}: nothing was sent again"
        );
    }
}
