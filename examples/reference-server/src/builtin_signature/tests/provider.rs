use std::sync::{Arc, Mutex};

use docg_core::signature::ProviderError;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

use super::{super::invitation::Occasion, *};
use crate::mail::SmtpServer;

#[tokio::test]
async fn every_signer_gets_a_link_of_their_own() {
    let fixture = Fixture::new().await;
    let envelope = fixture.ask(&[(ONE, None), (TWO, None)]).await;
    let mails = fixture.mails();
    assert_eq!(fixture.receivers(), [ONE, TWO]);
    for (to, text) in mails {
        let link = format!(
            "\r\nhttps://sign.example.com/docg/sign/{}\r\n",
            fixture.token(&envelope, &to)
        );
        assert!(text.contains(&link), "{text}");
    }
}

#[tokio::test]
async fn a_repeated_request_makes_no_second_envelope_and_sends_no_second_mail() {
    let fixture = Fixture::new().await;
    let signers = [(ONE, None), (TWO, None)];
    let request = fixture.request(&signers);
    assert_eq!(fixture.provider.find(&request).await.unwrap(), None);
    let first = fixture.ask(&signers).await;
    let found = fixture.provider.find(&request).await.unwrap().unwrap();
    assert_eq!(found.envelope_id, first);
    assert_eq!(fixture.ask(&signers).await, first);
    assert_eq!(fixture.mails().len(), 2);
}

#[tokio::test]
async fn a_request_that_broke_off_is_finished_by_its_repeat() {
    let fixture = Fixture::new().await;
    let mail = fixture.folder.path().join("mail");
    std::fs::write(&mail, b"a file where mails should go").unwrap();
    let request = fixture.request(&[(ONE, None)]);
    let failed = fixture.provider.create(request.clone()).await;
    assert!(
        matches!(failed, Err(ProviderError::Unavailable(_))),
        "{failed:?}"
    );
    assert_eq!(fixture.provider.find(&request).await.unwrap(), None);
    std::fs::remove_file(&mail).unwrap();
    fixture.provider.create(request.clone()).await.unwrap();
    assert!(fixture.provider.find(&request).await.unwrap().is_some());
    assert_eq!(fixture.receivers(), [ONE]);
}

#[tokio::test]
async fn signers_that_were_corrected_before_anybody_decided_replace_the_old_ones() {
    let fixture = Fixture::new().await;
    let envelope = fixture.ask(&[("wrong@example.com", None)]).await;
    assert_eq!(fixture.ask(&[(ONE, None)]).await, envelope);
    let kept = fixture.desk.envelope(&envelope).await.unwrap().unwrap();
    assert_eq!(kept.signers, [NewSigner::new(ONE)]);
    fixture.sign(&envelope, ONE, "One", 1).await;
    fixture.ask(&[(TWO, None)]).await;
    let kept = fixture.desk.envelope(&envelope).await.unwrap().unwrap();
    assert_eq!(kept.signers, [NewSigner::new(ONE)], "what was signed stays");
}

#[tokio::test]
async fn another_organization_s_document_is_not_sent_out() {
    let fixture = Fixture::new().await;
    let mut request = fixture.request(&[(ONE, None)]);
    request.organization_id = OrganizationId::new();
    let refused = fixture.provider.create(request).await;
    assert!(
        matches!(refused, Err(ProviderError::Refused(_))),
        "{refused:?}"
    );
    assert!(fixture.mails().is_empty());
}

#[tokio::test]
async fn the_signed_document_is_the_original_with_a_page_more() {
    let fixture = Fixture::with_contract().await;
    let envelope = fixture.ask(&[(ONE, None), (TWO, None)]).await;
    fixture
        .sign(&envelope, ONE, "Signer One", 1_768_500_000_000)
        .await;
    fixture
        .sign(&envelope, TWO, "Signer Two", 1_768_500_060_000)
        .await;
    let request = fixture.finished(&envelope, &[ONE, TWO]);
    let value = fixture.provider.signed_document(&request).await.unwrap();
    let signed = Document::from_value(&value).unwrap();
    assert_eq!(signed.filename, "Contract 7-signed.pdf");
    let original = fixture.content().await;
    let files = &fixture.desk.0.files;
    let content = files
        .read_document(fixture.organization, &signed)
        .await
        .unwrap();
    assert!(content.starts_with(&original) && content.len() > original.len());
    assert_eq!(signed.sha256, sha256(&content));
    let again = fixture.provider.signed_document(&request).await.unwrap();
    assert_eq!(again, value, "a repeat gives the same bytes");
}

#[tokio::test]
async fn a_document_that_was_changed_after_it_was_sent_out_is_not_signed() {
    let fixture = Fixture::with_contract().await;
    let envelope = fixture.ask(&[(ONE, None)]).await;
    fixture
        .sign(&envelope, ONE, "Signer One", 1_768_500_000_000)
        .await;
    let path = fixture
        .folder
        .path()
        .join("files")
        .join(&fixture.document.path);
    std::fs::write(path, b"%PDF-1.7 another one").unwrap();
    let refused = fixture
        .provider
        .signed_document(&fixture.finished(&envelope, &[ONE]))
        .await;
    let why = refused.unwrap_err().to_string();
    assert!(why.contains("SHA-256 differs"), "{why}");
}

#[tokio::test]
async fn nobody_is_listed_who_has_not_signed() {
    let fixture = Fixture::with_contract().await;
    let envelope = fixture.ask(&[(ONE, None), (TWO, None)]).await;
    fixture
        .sign(&envelope, ONE, "Signer One", 1_768_500_000_000)
        .await;
    let mut request = fixture.finished(&envelope, &[ONE, TWO]);
    request.signers[1].signed_at = None;
    let refused = fixture
        .provider
        .signed_document(&request)
        .await
        .unwrap_err();
    assert!(refused.to_string().contains(TWO), "{refused}");
}

/// The mail server's reaction to a complete message.
#[derive(Clone, Copy)]
enum Answer {
    HangUp,
    Bytes(&'static [u8]),
}

/// Starts a mail server that refuses one address. Returns its URL and the recipients of the messages that it
/// received.
async fn mail_server(answer: Answer, refused: &'static str) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("smtp://{}", listener.local_addr().unwrap());
    let taken = Arc::new(Mutex::new(Vec::new()));
    let mails = taken.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client may disconnect at any time.
            let _ = talk(stream, answer, refused, &mails).await;
        }
    });
    (url, taken)
}

async fn talk(
    stream: TcpStream,
    answer: Answer,
    refused: &str,
    taken: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 test\r\n").await?;
    let (mut line, mut to) = (String::new(), String::new());
    while stream.read_line(&mut line).await? > 0 {
        let reply: &[u8] = match line.get(..4) {
            Some("RCPT") if line.contains(refused) => b"550 5.1.1 No such mailbox\r\n",
            Some("RCPT") => {
                to = line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
                b"250 OK\r\n"
            }
            Some("DATA") => {
                stream.write_all(b"354 Go on\r\n").await?;
                while line != ".\r\n" {
                    line.clear();
                    if stream.read_line(&mut line).await? == 0 {
                        return Ok(());
                    }
                }
                taken.lock().unwrap().push(to.clone());
                match answer {
                    Answer::HangUp => return Ok(()),
                    Answer::Bytes(bytes) => bytes,
                }
            }
            _ => b"250 test\r\n",
        };
        stream.write_all(reply).await?;
        line.clear();
    }
    Ok(())
}

#[tokio::test]
async fn an_invitation_is_sent_once_whatever_the_mail_server_answers_and_whoever_is_refused() {
    const REFUSED: &str = "refused@example.com";
    for answer in [
        Answer::HangUp,
        Answer::Bytes(b"250 Nachricht \xfcbernommen\r\n"),
        Answer::Bytes(b"250 OK\r\n"),
    ] {
        let (url, taken) = mail_server(answer, REFUSED).await;
        let fixture = Fixture::with_mailer(b"a document".to_vec(), |_, files| {
            let server = SmtpServer::from_text(&url).unwrap();
            Mailer::smtp(server, "docg@example.com".parse().unwrap(), files.clone())
        })
        .await;
        let signers = [(ONE, None), (REFUSED, None), (TWO, None)];
        for _ in 0..3 {
            let refused = fixture.provider.create(fixture.request(&signers)).await;
            let Err(ProviderError::Refused(why)) = refused else {
                panic!("{refused:?}");
            };
            assert!(why.contains(REFUSED), "{why}");
            assert_eq!(*taken.lock().unwrap(), [ONE, TWO]);
        }
        let corrected = [(ONE, None), ("third@example.com", None), (TWO, None)];
        let envelope = fixture.ask(&corrected).await;
        assert_eq!(fixture.ask(&corrected).await, envelope);
        assert_eq!(*taken.lock().unwrap(), [ONE, TWO, "third@example.com"]);
        // Writing the same mail again sends nothing. It reports whether the first mail is known to be
        // accepted.
        let kept = fixture.desk.envelope(&envelope).await.unwrap().unwrap();
        let again = fixture
            .desk
            .write_to(&kept, &kept.signers[0], Occasion::Invitation);
        let is_known = again.await.unwrap();
        match answer {
            Answer::HangUp => assert!(!is_known),
            Answer::Bytes(reply) => assert_eq!(is_known, reply == b"250 OK\r\n"),
        }
    }
}

#[tokio::test]
async fn who_signs_before_all_are_invited_keeps_nobody_from_being_invited() {
    let fixture = Fixture::new().await;
    let failed = fixture
        .provider
        .create(fixture.request(&[(ONE, None), ("no address", None)]))
        .await;
    let refused = failed.expect_err("one cannot be written to");
    assert!(refused.to_string().contains("no address"), "{refused}");
    let signers = [(ONE, None), (TWO, None)];
    let envelope = super::super::provider::envelope_id(&fixture.request(&signers));
    fixture.sign(&envelope, ONE, "One", 1).await;
    assert_eq!(fixture.ask(&signers).await, envelope);
    assert_eq!(fixture.receivers(), [ONE, TWO]);
    let kept = fixture.desk.envelope(&envelope).await.unwrap().unwrap();
    assert_eq!(kept.signers.len(), 2);
    assert!(!fixture.desk.decisions(&kept).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_title_is_read_as_it_was_given_and_only_files_have_another_name() {
    let mut fixture = Fixture::with_contract().await;
    let content = fixture.content().await;
    let origin = Origin {
        organization_id: fixture.organization,
        execution_id: ExecutionId::new(),
        node_id: NodeId::from("render"),
    };
    for (given, title, filename) in [
        (
            "Contract 12/2026",
            "Contract 12/2026",
            "Contract 12-2026.pdf",
        ),
        ("Lease: A/B.PDF", "Lease: A/B", "Lease- A-B.pdf"),
        ("What\n\u{202e}now?", "What now?", "What--now.pdf"),
        ("v1.2", "v1.2", "v1.2.pdf"),
        ("///", "///", "document.pdf"),
        (" ", "document", "document.pdf"),
    ] {
        let files = &fixture.desk.0.files;
        let put = files.put_document(&origin, given, content.clone(), None);
        let document = put.await.unwrap();
        assert_eq!((document.title(), &*document.filename), (title, filename));
        fixture.document = document;
        let mut request = fixture.request(&[(ONE, None)]);
        request.idempotency_key = given.to_owned();
        let envelope = fixture.provider.create(request).await.unwrap().envelope_id;
        fixture.sign(&envelope, ONE, "One", 1_768_500_000_000).await;
        let finished = fixture.finished(&envelope, &[ONE]);
        let signed = fixture.provider.signed_document(&finished).await.unwrap();
        assert_eq!(Document::from_value(&signed).unwrap().title(), title);
        let subject = format!("Subject: Please sign: {title}\r\n");
        let mails = fixture.mails();
        assert!(
            mails.iter().any(|(_, mail)| mail.contains(&subject)),
            "{mails:?}"
        );
    }
}
