//! Tests of the whole built-in provider, from the request to the signed document. The fixture keeps
//! documents, records and mails in a temporary folder.

mod outbox;
mod pages;
mod provider;

use docg_core::{
    ids::{ExecutionId, NodeId, OrganizationId, SignatureRequestId},
    signature::{
        EnvelopeRequest, NewSigner, RequestStatus, SignatureProvider, SignatureRequest, Signer,
        SignerStatus,
    },
    time::Timestamp,
};
use sha2::{Digest, Sha256};

use super::*;
use crate::{
    files::{Document, Origin},
    pdf::{RenderRequest, Templates, render},
};

const ONE: &str = "signer.one@example.com";
const TWO: &str = "signer.two@example.com";

struct Fixture {
    folder: tempfile::TempDir,
    desk: Desk,
    provider: Provider,
    organization: OrganizationId,
    document: Document,
}

impl Fixture {
    /// A fixture whose document is not a PDF: a document is parsed only once all have signed it.
    async fn new() -> Self {
        Self::with(b"a document".to_vec()).await
    }

    async fn with(content: Vec<u8>) -> Self {
        Self::with_mailer(content, |folder, files| {
            let from = "docg@example.com".parse().unwrap();
            Mailer::folder(folder.join("mail"), from, files.clone())
        })
        .await
    }

    async fn with_mailer(
        content: Vec<u8>,
        mailer: impl FnOnce(&std::path::Path, &Files) -> Mailer,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::in_folder(folder.path().join("files")).unwrap();
        let mailer = mailer(folder.path(), &files);
        let organization = OrganizationId::new();
        let origin = Origin {
            organization_id: organization,
            execution_id: ExecutionId::new(),
            node_id: NodeId::from("render"),
        };
        let document = files
            .put_document(&origin, "Contract 7", content.into(), Some("en".to_owned()))
            .await
            .unwrap();
        let public = "https://sign.example.com/docg/".parse().unwrap();
        let desk = Desk::new(files, mailer, Secret::fixed(1), public);
        let provider = Provider::new(desk.clone(), crate::renders::Renderer::in_process());
        Self {
            folder,
            desk,
            provider,
            organization,
            document,
        }
    }

    async fn with_contract() -> Self {
        let sample = include_str!("../../../samples/contract.good.json");
        let data = serde_json::from_str(sample).unwrap();
        let today = chrono::NaiveDate::from_ymd_opt(2026, 1, 15).unwrap();
        let request = RenderRequest::new("contract.typ", &data, today);
        let pdf = render(&Templates::bundled(), request).unwrap();
        Self::with(pdf.bytes).await
    }

    fn request(&self, signers: &[(&str, Option<u32>)]) -> EnvelopeRequest {
        let signers = signers.iter().map(|(email, order)| {
            let mut signer = NewSigner::new(*email);
            signer.order = *order;
            signer
        });
        EnvelopeRequest::new(
            self.organization,
            "execution/sign".to_owned(),
            serde_json::to_value(&self.document).unwrap(),
            signers.collect(),
        )
    }

    /// Requests signatures. Returns the id of the envelope.
    async fn ask(&self, signers: &[(&str, Option<u32>)]) -> String {
        let taken = self.provider.create(self.request(signers)).await.unwrap();
        taken.envelope_id
    }

    fn token(&self, envelope: &str, email: &str) -> String {
        link::SignerRef::new(envelope, email).token(&self.desk.0.secret)
    }

    async fn sign(&self, envelope: &str, email: &str, name: &str, at: i64) {
        let signer = link::SignerRef::new(envelope, email);
        let decision = envelope::Decision {
            kind: envelope::DecisionKind::Signed,
            at: Timestamp::from_millis(at),
            name: Some(name.to_owned()),
            reason: None,
        };
        self.desk
            .announce_decision(&signer, decision.kind)
            .await
            .unwrap();
        assert!(self.desk.decide(&signer, &decision).await.unwrap());
    }

    /// The mails that were sent so far: the recipient and the whole text of each.
    fn mails(&self) -> Vec<(String, String)> {
        let Ok(entries) = std::fs::read_dir(self.folder.path().join("mail")) else {
            return Vec::new();
        };
        let mut mails: Vec<_> = entries
            .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
            .map(|text| {
                let to = text
                    .lines()
                    .find_map(|line| line.strip_prefix("X-Docg-Recipients: "));
                (to.unwrap().to_owned(), text)
            })
            .collect();
        mails.sort();
        mails
    }

    fn receivers(&self) -> Vec<String> {
        self.mails().into_iter().map(|(to, _)| to).collect()
    }

    /// The request as the engine passes it to the provider once all signers have signed.
    fn finished(&self, envelope: &str, signers: &[&str]) -> SignatureRequest {
        let signers = signers.iter().map(|email| Signer {
            email: (*email).to_owned(),
            name: None,
            order: None,
            status: SignerStatus::Signed,
            viewed_at: None,
            signed_at: Some(Timestamp::from_millis(1_768_500_000_000)),
            declined_at: None,
            reason: None,
        });
        SignatureRequest {
            id: SignatureRequestId::new(),
            execution_id: ExecutionId::new(),
            organization_id: self.organization,
            node_id: NodeId::from("sign"),
            provider: NAME.to_owned(),
            envelope_id: envelope.to_owned(),
            status: RequestStatus::Signed,
            signers: signers.collect(),
            file: serde_json::to_value(&self.document).unwrap(),
            created_at: Timestamp::from_millis(0),
            expires_at: None,
            completed_at: None,
            details: serde_json::Value::Null,
            follow_up: docg_core::signature::FollowUp::default(),
            unreadable: false,
        }
    }

    async fn content(&self) -> bytes::Bytes {
        let files = &self.desk.0.files;
        files
            .read_document(self.organization, &self.document)
            .await
            .unwrap()
    }
}

fn sha256(content: &[u8]) -> String {
    hex::encode(Sha256::digest(content))
}
