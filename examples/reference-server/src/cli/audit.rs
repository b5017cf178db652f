//! `audit verify`: over a file of rows, or by asking the server that keeps them.

use std::{borrow::Cow, path::Path, sync::Arc};

use docg_core::{
    ids::{AuditId, ExecutionId, OrganizationId},
    observe::{Actor, ActorType, AuditEvent, Target, verify_chain},
    time::Timestamp,
};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;
use uuid::Uuid;

use super::{CliError, run::named};
use crate::options::VerifyArgs;

/// What verifying has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// How many rows there are.
    pub count: u64,
    /// The last row's hash, in hexadecimal digits.
    pub head_hash: String,
    /// Where the chain breaks; `None` where it holds.
    pub first_invalid_seq: Option<u64>,
}

/// Verifies an audit trail.
///
/// # Errors
///
/// Where that could not be done, which says nothing about the trail.
pub async fn verify(args: &VerifyArgs) -> Result<Verdict, CliError> {
    let client = named(&args.server)?;
    let kept = match (&client, args.execution) {
        (Some(client), Some(id)) => {
            let answer = client
                .get(&format!("api/v1/executions/{id}/audit/verify"))
                .await?;
            Some(read_answer(&answer)?)
        }
        (Some(_), None) => {
            return Err(CliError::Usage(
                "--url needs --execution: whose trail?".to_owned(),
            ));
        }
        (None, _) => None,
    };
    match (&args.export, kept) {
        (Some(file), kept) => {
            let rows = read_export(file, args.execution.map(ExecutionId))?;
            Ok(verify_rows(&rows, kept.as_ref()))
        }
        (None, Some(kept)) => Ok(kept),
        (None, None) => Err(CliError::Usage(
            "there is nothing to verify here, because executions in memory end with their process: \
             give --export FILE, or --url, --token and --execution of a running server"
                .to_owned(),
        )),
    }
}

fn read_answer(answer: &Value) -> Result<Verdict, CliError> {
    let unreadable = || CliError::Http("the server's answer is no verdict".to_owned());
    let valid = answer
        .get("valid")
        .and_then(Value::as_bool)
        .ok_or_else(unreadable)?;
    let first = answer.get("first_invalid_seq").and_then(Value::as_u64);
    Ok(Verdict {
        count: answer
            .get("count")
            .and_then(Value::as_u64)
            .ok_or_else(unreadable)?,
        head_hash: answer
            .get("head_hash")
            .and_then(Value::as_str)
            .ok_or_else(unreadable)?
            .to_owned(),
        first_invalid_seq: if valid { None } else { first.or(Some(1)) },
    })
}

/// Rows alone cannot show that their end was cut off; what the server keeps can.
fn verify_rows(rows: &[AuditEvent], kept: Option<&Verdict>) -> Verdict {
    let last = rows.last();
    let (seq, hash) = last.map_or((0, [0; 32]), |row| (row.seq, row.hash));
    let report = verify_chain(rows, seq, hash);
    let mut first_invalid_seq = report.fault.map(|fault| fault.seq);
    if let (None, Some(kept)) = (first_invalid_seq, kept) {
        if report.count < kept.count {
            first_invalid_seq = Some(report.count + 1);
        } else if report.count == kept.count && hex::encode(report.head_hash) != kept.head_hash {
            first_invalid_seq = Some(report.count);
        }
    }
    Verdict {
        count: report.count,
        head_hash: hex::encode(report.head_hash),
        first_invalid_seq,
    }
}

/// JSON Lines, an array, or pages as the API gives them.
fn read_export(path: &Path, only: Option<ExecutionId>) -> Result<Vec<AuditEvent>, CliError> {
    let error = |why: String| CliError::File {
        file: path.display().to_string(),
        why,
    };
    let text = std::fs::read_to_string(path).map_err(|e| error(e.to_string()))?;
    let mut rows = Vec::new();
    for value in serde_json::Deserializer::from_str(&text).into_iter::<Value>() {
        let value = value.map_err(|e| error(e.to_string()))?;
        match value {
            Value::Array(items) => rows.extend(items),
            Value::Object(mut page) => match page.remove("events") {
                Some(Value::Array(items)) => rows.extend(items),
                _ => rows.push(Value::Object(page)),
            },
            _ => return Err(error("a row is a JSON object".to_owned())),
        }
    }
    let mut read = Vec::with_capacity(rows.len());
    for (number, row) in (1..).zip(rows) {
        let row: Row =
            serde_json::from_value(row).map_err(|e| error(format!("row {number}: {e}")))?;
        read.push(AuditEvent::from(row));
    }
    if let Some(only) = only {
        read.retain(|row| row.execution_id == only);
    }
    let first = read
        .first()
        .ok_or_else(|| error("there are no rows to verify".to_owned()))?;
    if read
        .iter()
        .any(|row| row.execution_id != first.execution_id)
    {
        return Err(error(
            "rows of several executions: choose one with --execution".to_owned(),
        ));
    }
    Ok(read)
}

/// A row of an export: as the API shows it, with what its hash is made of. Hashes are hexadecimal,
/// with or without the `\x` that Postgres puts before them.
#[derive(Deserialize)]
struct Row {
    id: AuditId,
    seq: u64,
    organization_id: OrganizationId,
    execution_id: ExecutionId,
    timestamp: Timestamp,
    actor_type: ActorType,
    actor_id: String,
    action: String,
    target_type: String,
    target_id: String,
    metadata: Value,
    salt: Option<Uuid>,
    #[serde(deserialize_with = "digest")]
    commitment: [u8; 32],
    #[serde(deserialize_with = "digest")]
    prev_hash: [u8; 32],
    #[serde(deserialize_with = "digest")]
    hash: [u8; 32],
}

impl From<Row> for AuditEvent {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            seq: row.seq,
            organization_id: row.organization_id,
            execution_id: row.execution_id,
            timestamp: row.timestamp,
            action: Cow::Owned(row.action),
            target: Target {
                kind: Cow::Owned(row.target_type),
                id: row.target_id,
            },
            actor: Actor {
                actor_type: row.actor_type,
                actor_id: Arc::from(row.actor_id),
            },
            metadata: row.metadata.into(),
            salt: row.salt,
            commitment: row.commitment,
            prev_hash: row.prev_hash,
            hash: row.hash,
        }
    }
}

fn digest<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
    let text = String::deserialize(deserializer)?;
    let digits = text.strip_prefix("\\x").unwrap_or(&text);
    let mut digest = [0; 32];
    hex::decode_to_slice(digits, &mut digest).map_err(D::Error::custom)?;
    Ok(digest)
}

#[cfg(test)]
mod tests;
