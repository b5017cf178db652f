//! `audit verify`: verifies audit rows in a file, in a server's store, or in the database.

use std::{borrow::Cow, cmp::Ordering, path::Path, sync::Arc};

use docg_core::{
    ids::{AuditId, ExecutionId, OrganizationId},
    observe::{Actor, ActorType, AuditEvent, Target, verify_chain},
    time::Timestamp,
};
use docg_store_postgres::AuditReport;
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;
use uuid::Uuid;

use super::{CliError, database, local::named};
use crate::options::{Options, VerifyArgs};

/// The result of a verification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// True if all rows are valid.
    pub is_valid: bool,
    /// A report for people: the rows that were checked and the faults that were found.
    pub text: String,
}

/// Verifies audit trails: in a file, in a server's store, or in the database.
///
/// # Errors
///
/// If the verification could not be done. The trail may be valid or not.
pub async fn verify(options: &Options, args: &VerifyArgs) -> Result<Verdict, CliError> {
    let kept = kept(args).await?;
    let execution = args.execution.map(ExecutionId);
    let Some(file) = &args.export else {
        return match (kept, &options.database_url) {
            (Some(kept), _) => Ok(kept.into()),
            (None, Some(_)) => database::verify(options, execution)
                .await
                .map(|report| Verdict::from(&report)),
            (None, None) => Err(CliError::Usage(
                "there is nothing to verify here, because executions in memory end with their \
                 process: give --export FILE, or --url, --token and --execution of a running server"
                    .to_owned(),
            )),
        };
    };
    let Some(report) = database::verify_export(options, file, execution)? else {
        let rows = read_export(file, execution)?;
        return Ok(verify_rows(&rows, kept.as_ref()).into());
    };
    let mut verdict = Verdict::from(&report);
    if let (Some(kept), Some((seq, hash))) = (&kept, report.head)
        && let Some(seq) = first_difference(seq, hash, kept)
    {
        verdict.is_valid = false;
        verdict.text = format!(
            "the server has another row {seq}, or none\n{}",
            verdict.text
        );
    }
    Ok(verdict)
}

/// Asks the server that `--url` names to verify its trail of the execution. `None` without `--url`.
async fn kept(args: &VerifyArgs) -> Result<Option<Chain>, CliError> {
    let Some(url) = &args.server.url else {
        return Ok(None);
    };
    let Some(id) = args.execution else {
        return Err(CliError::Usage(
            "--url needs --execution: whose trail?".to_owned(),
        ));
    };
    let client = named(&args.server, url)?;
    let answer = client
        .get(&format!("api/v1/executions/{id}/audit/verify"))
        .await?;
    read_answer(&answer).map(Some)
}

/// The outcome of verifying the audit rows of one execution, which form a chain of hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Chain {
    /// The number of rows.
    count: u64,
    /// The hash of the last row, in hexadecimal digits.
    head_hash: String,
    /// The sequence number of the first invalid row. `None` if the chain is valid.
    first_invalid_seq: Option<u64>,
}

impl From<Chain> for Verdict {
    fn from(chain: Chain) -> Self {
        let Chain {
            count, head_hash, ..
        } = chain;
        let text = match chain.first_invalid_seq {
            None => format!("valid: {count} rows, head {head_hash}"),
            Some(seq) => {
                format!("not valid: {count} rows, the first that does not hold is {seq}")
            }
        };
        Self {
            is_valid: chain.first_invalid_seq.is_none(),
            text,
        }
    }
}

impl From<&AuditReport> for Verdict {
    fn from(report: &AuditReport) -> Self {
        let faults = report.faults.iter().map(|fault| format!("{fault}\n"));
        let not = if report.is_valid() { "" } else { "not " };
        let unsigned = match report.unsigned {
            0 => String::new(),
            rows => format!(
                "\nwarning: no checkpoint covers {rows} rows yet, so nothing shows if they are cut off"
            ),
        };
        Self {
            is_valid: report.is_valid(),
            text: format!(
                "{}{not}valid: {} executions, {} rows, {} checkpoints{unsigned}",
                faults.collect::<String>(),
                report.chains,
                report.rows,
                report.checkpoints
            ),
        }
    }
}

fn read_answer(answer: &Value) -> Result<Chain, CliError> {
    let unreadable = || CliError::Http("the server's answer is no verdict".to_owned());
    let valid = answer
        .get("valid")
        .and_then(Value::as_bool)
        .ok_or_else(unreadable)?;
    let first = answer.get("first_invalid_seq").and_then(Value::as_u64);
    Ok(Chain {
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

/// Verifies rows, and compares them with the server's trail, `kept`, if it is given. Only the comparison
/// shows that the last rows were cut off.
fn verify_rows(rows: &[AuditEvent], kept: Option<&Chain>) -> Chain {
    let last = rows.last();
    let (seq, hash) = last.map_or((0, [0; 32]), |row| (row.seq, row.hash));
    let report = verify_chain(rows, seq, hash);
    let fault = report.fault.map(|fault| fault.seq);
    let differs = || first_difference(report.count, report.head_hash, kept?);
    Chain {
        count: report.count,
        head_hash: hex::encode(report.head_hash),
        first_invalid_seq: fault.or_else(differs),
    }
}

/// The number of the first row in which a chain of `count` rows, the last with the hash `head`, differs from
/// the server's chain.
fn first_difference(count: u64, head: [u8; 32], kept: &Chain) -> Option<u64> {
    match count.cmp(&kept.count) {
        Ordering::Less => Some(count + 1),
        Ordering::Equal => (hex::encode(head) != kept.head_hash).then_some(count),
        Ordering::Greater => Some(kept.count + 1),
    }
}

/// Reads an export: JSON Lines, an array, or pages as the API returns them.
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

/// A row of an export, with the API's fields and the inputs of its hash. Hashes are hexadecimal, with or
/// without the `\x` that Postgres puts before them. The actor of an erased row may be `null`.
#[derive(Deserialize)]
struct Row {
    id: AuditId,
    seq: u64,
    organization_id: OrganizationId,
    execution_id: ExecutionId,
    timestamp: Timestamp,
    actor_type: ActorType,
    actor_id: Option<String>,
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
                actor_id: Arc::from(row.actor_id.unwrap_or_default()),
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
