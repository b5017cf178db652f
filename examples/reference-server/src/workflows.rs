//! The workflows that every organization gets, bundled or from a folder.

use std::{fmt, path::Path};

use docg_core::{
    engine::{Engine, EngineError},
    error::FieldFault,
    i18n::Locale,
    ids::{OrganizationId, WorkflowId},
    json,
    observe::JsonText,
    ports::{TtlEntry, TtlKey},
    time::Timestamp,
    workflow::WorkflowDraft,
};
use futures::{StreamExt, TryFutureExt, TryStreamExt, stream};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// A workflow from a file.
#[derive(Debug, Clone)]
pub struct WorkflowFile {
    /// The file's name, for messages.
    pub file: String,
    /// The workflow's id in every organization.
    pub id: WorkflowId,
    /// The workflow.
    pub draft: WorkflowDraft,
    /// A hash of the content, independent of formatting. It shows whether the file has changed.
    digest: String,
}

/// All faults of all workflow files.
#[derive(Debug)]
pub struct WorkflowFaults(Vec<String>);

impl fmt::Display for WorkflowFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("workflows cannot be used:")?;
        for fault in &self.0 {
            write!(f, "\n  {fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for WorkflowFaults {}

/// The example workflows in the program.
const BUNDLED: [(&str, &str); 3] = [
    (
        "approved-contract.json",
        include_str!("../workflows/approved-contract.json"),
    ),
    (
        "service-contract.json",
        include_str!("../workflows/service-contract.json"),
    ),
    (
        "contract.schema.json",
        include_str!("../workflows/contract.schema.json"),
    ),
];

/// The workflows that come with the program.
///
/// # Errors
///
/// Never in a build whose tests pass.
pub fn bundled() -> Result<Vec<WorkflowFile>, WorkflowFaults> {
    let files = BUNDLED.map(|(name, text)| (name.to_owned(), text.to_owned()));
    read(&files)
}

/// Reads the workflows of a folder: all `*.json` files, except the `*.schema.json` files, which a workflow's
/// `input_schema` may name.
///
/// # Errors
///
/// [`WorkflowFaults`], also if the folder cannot be read or has no workflow.
pub fn in_folder(folder: &Path) -> Result<Vec<WorkflowFile>, WorkflowFaults> {
    let fault = |path: &Path, e: &dyn fmt::Display| {
        WorkflowFaults(vec![format!("{}: {e}", path.display())])
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| fault(folder, &e))? {
        let path = entry.map_err(|e| fault(folder, &e))?.path();
        if path.extension().is_some_and(|ending| ending == "json") && path.is_file() {
            let text = std::fs::read_to_string(&path).map_err(|e| fault(&path, &e))?;
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            files.push((name, text));
        }
    }
    files.sort();
    let workflows = read(&files)?;
    if workflows.is_empty() {
        return Err(fault(folder, &"there is no workflow in it"));
    }
    Ok(workflows)
}

fn read(files: &[(String, String)]) -> Result<Vec<WorkflowFile>, WorkflowFaults> {
    let mut workflows: Vec<WorkflowFile> = Vec::new();
    let mut faults = Vec::new();
    for (name, text) in files
        .iter()
        .filter(|(name, _)| !name.ends_with(".schema.json"))
    {
        match read_one(name, text, files) {
            Ok(workflow) => match workflows.iter().find(|other| other.id == workflow.id) {
                Some(other) => faults.push(format!("{name}: /id: {} has it too", other.file)),
                None => workflows.push(workflow),
            },
            Err(fault) => faults.push(format!("{name}: {fault}")),
        }
    }
    if faults.is_empty() {
        Ok(workflows)
    } else {
        Err(WorkflowFaults(faults))
    }
}

fn read_one(name: &str, text: &str, files: &[(String, String)]) -> Result<WorkflowFile, String> {
    let mut value = json::read(text.as_bytes()).map_err(|e| e.to_string())?;
    let fields = value.as_object_mut().ok_or("an object is expected")?;
    let id = fields.remove("id").ok_or("/id: it is missing")?;
    let id: WorkflowId = serde_json::from_value(id)
        .map_err(|e| format!("/id: {}", json::misfit(&e).render(Locale::En)))?;
    if let Some(Value::String(schema)) = fields.get("input_schema") {
        let (_, text) = files
            .iter()
            .find(|(name, _)| name == schema)
            .ok_or_else(|| format!("/input_schema: there is no file {schema:?} beside it"))?;
        let schema =
            json::read(text.as_bytes()).map_err(|e| format!("/input_schema: {schema}: {e}"))?;
        fields.insert("input_schema".to_owned(), schema);
    }
    // Hash the file's content and not the draft: a draft also holds this program version's defaults.
    let digest = hex::encode(Sha256::digest(JsonText::from(&value).as_str()));
    let draft = serde_path_to_error::deserialize(value).map_err(|e| {
        format!(
            "{}: {}",
            e.path(),
            json::misfit(e.inner()).render(Locale::En)
        )
    })?;
    Ok(WorkflowFile {
        file: name.to_owned(),
        id,
        draft,
        digest,
    })
}

/// The reason why workflows were not stored.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// The engine rejects the workflows.
    #[error(transparent)]
    Faults(WorkflowFaults),
    /// The store failed.
    #[error("workflows could not be stored: {0}")]
    Engine(#[from] EngineError),
}

/// The expiry of the entry that notes which version of a workflow file was stored last. It is the end of the
/// year 9999, so the entry never expires.
const NEVER: Timestamp = Timestamp::MAX;
/// The number of workflows that are stored at once, so that many organizations do not delay the start.
const PUTS_AT_ONCE: usize = 16;

/// Stores workflows for organizations, each file once. If a client changes or deletes the workflow later, the
/// client's change stays until the file itself changes.
///
/// # Errors
///
/// [`PutError::Faults`] before anything is stored. [`PutError::Engine`] if the store fails.
pub async fn put_all(
    engine: &Engine,
    workflows: &[WorkflowFile],
    organizations: &[OrganizationId],
) -> Result<(), PutError> {
    let mut faults = Vec::new();
    for workflow in workflows {
        if let Err(found) = engine.check_workflow(workflow.draft.clone()) {
            let line = |fault: FieldFault| {
                format!(
                    "{}: {}: {} ({})",
                    workflow.file,
                    fault.pointer,
                    fault.detail.render(Locale::En),
                    fault.code
                )
            };
            faults.extend(found.into_iter().map(line));
        }
    }
    if !faults.is_empty() {
        return Err(PutError::Faults(WorkflowFaults(faults)));
    }
    let puts = workflows.iter().flat_map(|workflow| {
        let of =
            move |organization: &OrganizationId| put(engine, workflow, *organization).err_into();
        organizations.iter().map(of)
    });
    stream::iter(puts)
        .map(Ok)
        .try_for_each_concurrent(PUTS_AT_ONCE, |put| put)
        .await
}

async fn put(
    engine: &Engine,
    file: &WorkflowFile,
    organization: OrganizationId,
) -> Result<(), EngineError> {
    let given = TtlEntry {
        key: TtlKey {
            organization_id: Some(organization),
            kind: "workflow_file",
            key: file.id.to_string(),
        },
        value: file.digest.clone().into(),
        expires_at: NEVER,
    };
    let before = engine.recall(&given.key).await?;
    if before.is_some_and(|before| before.value == given.value) {
        return Ok(());
    }
    if !is_current(engine, file, organization).await? {
        engine
            .put_workflow(organization, file.id, file.draft.clone(), None)
            .await?;
        tracing::info!(workflow_id = %file.id, %organization, file = file.file, "workflow stored");
    }
    engine.replace(given).await
}

/// True if the stored workflow already equals the file, for example because another process has stored it.
async fn is_current(
    engine: &Engine,
    file: &WorkflowFile,
    organization: OrganizationId,
) -> Result<bool, EngineError> {
    let current = match engine.workflow(organization, file.id).await {
        Ok(current) => current,
        Err(EngineError::NotFound(_)) => return Ok(false),
        Err(e) => return Err(e),
    };
    let checked = engine.check_workflow(file.draft.clone());
    let valid = checked.map_err(EngineError::InvalidWorkflow)?;
    Ok(current.name == valid.name
        && current.input_schema == valid.input_schema
        && current.settings == valid.settings
        && current.nodes == valid.nodes)
}

#[cfg(test)]
mod tests;
