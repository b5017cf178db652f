//! JSON Schema of trigger data. References stay within the schema, and patterns are matched in
//! linear time, whoever wrote them.

use serde_json::{Map, Value};

/// What is wrong with a schema: a JSON pointer into it, and words.
pub(crate) type SchemaFault = (String, String);

/// One way in which data breaks a schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// A required field is not there; `path` is its own.
    pub(crate) missing: bool,
    /// The names down to it.
    pub(crate) path: Vec<String>,
    /// For technicians; shows no data.
    pub(crate) tech: String,
}

#[cfg(feature = "json-schema")]
pub(crate) use with_feature::{broken_by, check};
#[cfg(not(feature = "json-schema"))]
pub(crate) use without_feature::{broken_by, check};

#[cfg(feature = "json-schema")]
mod with_feature {
    use std::sync::{Arc, LazyLock};

    use jsonschema::{PatternOptions, ValidationError, Validator, error::ValidationErrorKind};

    use super::*;
    use crate::{
        ids::{OrganizationId, WorkflowId},
        workflow::{Workflow, validate::Recent},
    };

    /// More violations than this are not listed.
    const MAX_LISTED: usize = 50;

    fn compile(schema: &Map<String, Value>) -> Result<Validator, SchemaFault> {
        jsonschema::options()
            .offline()
            .should_validate_formats(true)
            .with_pattern_options(PatternOptions::regex())
            .build(&Value::Object(schema.clone()))
            .map_err(|e| (e.instance_path().as_str().to_owned(), e.to_string()))
    }

    /// Whether it is a schema that can be used.
    pub(crate) fn check(schema: &Map<String, Value>) -> Result<(), SchemaFault> {
        if schema.is_empty() {
            Ok(())
        } else {
            compile(schema).map(drop)
        }
    }

    struct Compiled {
        schema: Map<String, Value>,
        validator: Result<Validator, SchemaFault>,
    }

    fn compiled(workflow: &Workflow) -> Arc<Compiled> {
        type Key = (OrganizationId, WorkflowId, u32);
        static RECENT: LazyLock<Recent<Key, Arc<Compiled>>> = LazyLock::new(|| Recent::new(256));
        let key = (workflow.organization_id, workflow.id, workflow.version);
        // Two engines in one process may use the same ids for different workflows.
        if let Some(found) = RECENT
            .get(&key)
            .filter(|found| found.schema == workflow.input_schema)
        {
            return found;
        }
        let made = Arc::new(Compiled {
            schema: workflow.input_schema.clone(),
            validator: compile(&workflow.input_schema),
        });
        RECENT.put(key, Arc::clone(&made));
        made
    }

    /// How the data breaks the workflow's schema, or why that cannot be told.
    pub(crate) fn broken_by(workflow: &Workflow, data: &Value) -> Result<Vec<Violation>, String> {
        if workflow.input_schema.is_empty() {
            return Ok(Vec::new());
        }
        let compiled = compiled(workflow);
        let validator = compiled
            .validator
            .as_ref()
            .map_err(|(_, detail)| detail.clone())?;
        if validator.is_valid(data) {
            return Ok(Vec::new());
        }
        Ok(validator
            .iter_errors(data)
            .take(MAX_LISTED)
            .map(|error| violation(&error))
            .collect())
    }

    fn violation(error: &ValidationError<'_>) -> Violation {
        let mut path: Vec<String> = error
            .instance_path()
            .as_str()
            .split('/')
            .skip(1)
            .map(|token| token.replace("~1", "/").replace("~0", "~"))
            .collect();
        let missing = match error.kind() {
            ValidationErrorKind::Required { property } => {
                path.push(property.as_str().unwrap_or_default().to_owned());
                true
            }
            _ => false,
        };
        // Where the schema says so, not what the data holds.
        let tech = format!(
            "{} (schema: {})",
            error.kind().keyword(),
            error.schema_path()
        );
        Violation {
            missing,
            path,
            tech,
        }
    }
}

#[cfg(not(feature = "json-schema"))]
mod without_feature {
    use super::*;
    use crate::workflow::Workflow;

    const WITHOUT: &str = "docg was built without the feature json-schema";

    /// Only the empty schema can be used without the feature.
    pub(crate) fn check(schema: &Map<String, Value>) -> Result<(), SchemaFault> {
        if schema.is_empty() {
            Ok(())
        } else {
            Err((String::new(), WITHOUT.to_owned()))
        }
    }

    /// Only the empty schema can be used without the feature.
    pub(crate) fn broken_by(workflow: &Workflow, _: &Value) -> Result<Vec<Violation>, String> {
        if workflow.input_schema.is_empty() {
            Ok(Vec::new())
        } else {
            Err(WITHOUT.to_owned())
        }
    }
}
