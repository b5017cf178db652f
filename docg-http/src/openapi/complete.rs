//! Adds the parts that operations have in common: problems, headers, parameters, security.

use serde_json::{Map, Value, json};

use docg_core::limits::{EVENT_KEY, EVENT_NAME, NODE_ID, TEXTS};

use crate::problem::codes;

/// The problems by status: name, description, and the codes that a client may see with it.
const PROBLEMS: [(&str, &str, &str, &[&str]); 14] = [
    (
        "400",
        "BadRequest",
        "The request cannot be understood.",
        &["malformed_json", "bad_request", "organization_required"],
    ),
    (
        "401",
        "Unauthorized",
        "Valid credentials are required.",
        &["unauthorized", "webhook_unauthenticated"],
    ),
    (
        "403",
        "Forbidden",
        "The credentials do not allow this.",
        &[
            "missing_scope",
            "organization_not_allowed",
            "token_for_another_stream",
        ],
    ),
    (
        "404",
        "NotFound",
        "There is no such thing, or it is another organization's.",
        &["not_found"],
    ),
    (
        "409",
        "Conflict",
        "What is there does not allow this.",
        &[
            "invalid_transition",
            "unreadable",
            "approval_decided",
            "already_voted",
            "approval_expired",
            "approval_canceled",
            "no_document",
        ],
    ),
    (
        "412",
        "PreconditionFailed",
        "It has changed since it was read.",
        &["version_mismatch"],
    ),
    (
        "413",
        "ContentTooLarge",
        "The body is too large.",
        &["payload_too_large"],
    ),
    (
        "415",
        "UnsupportedMediaType",
        "The body is no JSON by its content type.",
        &["unsupported_media_type"],
    ),
    (
        "422",
        "UnprocessableContent",
        "Values are well formed and wrong; each is named in `errors`.",
        &["validation_failed", "idempotency_key_reused"],
    ),
    (
        "429",
        "TooManyRequests",
        "Too many streams are open. Where `text/event-stream` is asked for it is 200 with only `retry`: an `EventSource` gives up for good on any other status.",
        &["too_many_streams"],
    ),
    (
        "500",
        "InternalServerError",
        "A failure of the server.",
        &["internal_error"],
    ),
    (
        "501",
        "NotImplemented",
        "The service is not set up for this.",
        &["signatures_not_configured"],
    ),
    (
        "503",
        "ServiceUnavailable",
        "Something that this needs does not answer, or not in time.",
        &["service_unavailable", "timeout"],
    ),
    (
        "507",
        "InsufficientStorage",
        "Nothing more can be kept at the moment.",
        &["storage_full"],
    ),
];

/// The request headers that every operation reads, by their names among the shared parameters.
const READ_BY_ALL: [&str; 3] = ["CorrelationId", "Traceparent", "AcceptLanguage"];
/// The headers that every answer has, each with the name of its shared description.
const GIVEN_BY_ALL: [(&str, &str); 2] = [
    ("X-Correlation-ID", "CorrelationId"),
    ("Content-Language", "ContentLanguage"),
];

/// Completes a document with the parts that all operations share.
pub(super) fn completed(mut document: Value) -> Value {
    document["components"]["securitySchemes"] = security_schemes();
    document["components"]["parameters"] = parameters();
    document["components"]["headers"] = headers();
    document["components"]["responses"] = responses();
    document["servers"] = json!([{"url": "/", "description": "The server of this document."}]);
    add_summary(&mut document["components"]["schemas"]);
    add_event_names(&mut document["components"]["schemas"]);
    add_conditions(&mut document["components"]["schemas"]["BulkBody"]);
    each(&mut document["components"]["schemas"], |_, schema| {
        nothing_left_out(schema);
        bound_texts(schema);
    });
    document["components"]["schemas"]["Problem"] = problem();
    each(&mut document["paths"], |path, item| {
        each(item, |_, operation| complete(path, operation));
    });
    document
}

fn each(object: &mut Value, mut visit: impl FnMut(&str, &mut Value)) {
    for (name, value) in object.as_object_mut().into_iter().flatten() {
        visit(name, value);
    }
}

/// Adds the schema of an execution in the view `summary`, which lists may hold.
fn add_summary(schemas: &mut Value) {
    let mut summary = schemas["Execution"].clone();
    if let Some(properties) = summary["properties"].as_object_mut() {
        for name in ["trigger_data", "preflight_summary", "phase_metrics"] {
            properties.remove(name);
        }
    }
    summary["description"] = json!("An execution without its large parts.");
    schemas["ExecutionSummary"] = summary;
    schemas["Executions"]["properties"]["executions"]["items"] = json!({"anyOf": [
        {"$ref": "#/components/schemas/Execution"},
        {"$ref": "#/components/schemas/ExecutionSummary"},
    ]});
}

/// Adds the names of all events as one enumeration.
fn add_event_names(schemas: &mut Value) {
    let kinds = schemas["EventData"]["oneOf"].as_array();
    let kinds = kinds.into_iter().flatten();
    let names = kinds.filter_map(|kind| kind["properties"]["event_type"]["enum"].as_array());
    let names: Vec<_> = names.flatten().cloned().collect();
    schemas["EventName"] = json!({
        "type": "string", "enum": names, "description": "The name of an event.",
    });
}

/// Adds the conditions of a call on many executions: it names or filters them, and only some calls take a reason.
fn add_conditions(body: &mut Value) {
    body["anyOf"] = json!([
        {"required": ["ids"], "properties": {"ids": {"type": "array"}}},
        {"required": ["filter"], "properties": {"filter": {"type": "object"}}},
    ]);
    body["if"] = json!({"properties": {"action": {"enum": ["resume", "retry"]}}});
    body["then"] = json!({"properties": {"reason": {"type": "null"}}});
}

/// Marks the properties of answers as required, because answers hold null for absent values. Exception:
/// properties whose default is false are left out while they are false. Schemas of requests, which refuse
/// unknown properties, stay as they are: they name their required properties themselves.
fn nothing_left_out(schema: &mut Value) {
    match schema {
        Value::Object(map) if map.get("additionalProperties") != Some(&Value::Bool(false)) => {
            if let Some(Value::Object(properties)) = map.get("properties") {
                let always = properties.iter().filter(|(_, it)| it["default"] != false);
                let names = always
                    .map(|(name, _)| Value::String(name.clone()))
                    .collect();
                map.insert("required".to_owned(), Value::Array(names));
            }
            map.values_mut().for_each(nothing_left_out);
        }
        Value::Array(schemas) => schemas.iter_mut().for_each(nothing_left_out),
        _ => {}
    }
}

/// Adds the lengths and patterns of a request's texts, from the table by which the engine checks texts.
fn bound_texts(schema: &mut Value) {
    if schema["additionalProperties"] != false {
        return;
    }
    each(&mut schema["properties"], bound_text);
}

fn bound_text(name: &str, schema: &mut Value) {
    let is_text = schema["type"] == "string"
        || schema["type"]
            .as_array()
            .is_some_and(|types| types.contains(&json!("string")));
    let name = match name {
        // A request names a step by its node's id.
        "step_id" => NODE_ID.name,
        // Only events have a key.
        "key" => EVENT_KEY.name,
        name => name,
    };
    let limit = TEXTS.iter().find(|limit| limit.name == name);
    if let Some(limit) = limit.filter(|_| is_text) {
        schema["maxLength"] = json!(limit.max);
        if schema["pattern"].is_null() {
            schema["pattern"] = json!(limit.pattern());
        }
    }
}

fn complete(path: &str, operation: &mut Value) {
    let named = path.contains('{');
    let health = matches!(path, "/healthz" | "/readyz" | "/api/v1/sse/health");
    let has_body = operation.get("requestBody").is_some();
    let any_body = !operation["requestBody"]["content"]["*/*"].is_null();
    let guarded = operation
        .get("security")
        .is_some_and(|ways| ways[0].get("bearer").is_some());
    let keyed = operation["parameters"]
        .as_array()
        .is_some_and(|all| all.iter().any(|it| it["name"] == "Idempotency-Key"));

    if let Some(scope) = operation["security"][0]["bearer"][0].as_str() {
        let told = operation["description"].as_str();
        let told = told.map(|text| format!("{text}\n\n")).unwrap_or_default();
        operation["description"] = json!(format!("{told}Scope: `{scope}`."));
    }
    // An optional body may be left out, but it is never null.
    if let Some(schema) = operation.pointer_mut("/requestBody/content/application~1json/schema")
        && let Some(given) = schema.pointer_mut("/oneOf/0")
    {
        *schema = given.take();
    }
    let mut read = operation["parameters"].take();
    if let Value::Null = read {
        read = json!([]);
    }
    if let Value::Array(read) = &mut read {
        for parameter in read.iter_mut() {
            if let Some(name) = parameter["name"].as_str().map(str::to_owned) {
                // Only events are addressed by their name.
                let is_event = name == "name" && parameter["in"] == "path";
                let name = if is_event { EVENT_NAME.name } else { &name };
                bound_text(name, &mut parameter["schema"]);
            }
            // A parameter cannot be null.
            if let Some(kind) = parameter.pointer_mut("/schema/type")
                && kind.is_array()
            {
                *kind = kind[0].take();
            }
        }
        let of_caller = guarded.then_some("OrganizationId");
        for name in of_caller.into_iter().chain(READ_BY_ALL) {
            read.push(json!({"$ref": format!("#/components/parameters/{name}")}));
        }
    }
    operation["parameters"] = read;
    if !guarded && operation.get("security").is_none() {
        operation["security"] = json!([]);
    }

    let possible = [
        ("400", true),
        ("401", guarded),
        ("403", guarded),
        ("404", named),
        ("409", !health),
        ("413", has_body),
        ("415", has_body && !any_body),
        ("422", !health),
        ("500", true),
        ("503", true),
        ("507", has_body),
    ];
    let answers = &mut operation["responses"];
    for (status, _) in possible.into_iter().filter(|(_, possible)| *possible) {
        if answers.get(status).is_none() {
            answers[status] = json!({});
        }
    }
    each(answers, |status, answer| {
        let problem = PROBLEMS.iter().find(|(known, ..)| *known == status);
        match problem {
            Some((_, name, ..)) if answer.get("content").is_none() => {
                *answer = json!({"$ref": format!("#/components/responses/{name}")});
            }
            // The operation describes a body of its own for this status. Add the problem as a second body.
            Some((_, _, _, codes)) => {
                answer["content"]["application/problem+json"] =
                    json!({"schema": problem_of(status, codes)});
                give(answer, &[]);
            }
            None => {
                let tag = has_version(answer).then_some(("ETag", "EntityTag"));
                let replayed = keyed.then_some(("Idempotency-Replayed", "IdempotencyReplayed"));
                let own: Vec<_> = tag.into_iter().chain(replayed).collect();
                give(answer, &own);
            }
        }
    });
}

/// The shared responses: one problem for each status.
fn responses() -> Value {
    let mut responses = json!({});
    for (status, name, description, codes) in PROBLEMS {
        let mut answer = json!({
            "description": description,
            "content": {"application/problem+json": {"schema": problem_of(status, codes)}},
        });
        give(
            &mut answer,
            match status {
                "401" => &[("WWW-Authenticate", "WwwAuthenticate")],
                "429" | "503" => &[("Retry-After", "RetryAfter")],
                _ => &[],
            },
        );
        responses[name] = answer;
    }
    responses
}

/// Describes an answer's headers: the headers of every answer, and those of this one, `own`.
fn give(answer: &mut Value, own: &[(&str, &str)]) {
    for (name, header) in GIVEN_BY_ALL.iter().chain(own) {
        answer["headers"][name] = json!({"$ref": format!("#/components/headers/{header}")});
    }
}

/// True if the answer is an execution or a workflow. Only these have a version.
fn has_version(answer: &Value) -> bool {
    let schema = &answer["content"]["application/json"]["schema"]["$ref"];
    ["Execution", "Workflow"]
        .iter()
        .any(|name| schema == &format!("#/components/schemas/{name}"))
}

fn problem_of(status: &str, codes: &[&str]) -> Value {
    let mut own = json!({
        "type": "object",
        "properties": {
            "status": {"enum": [status.parse::<u16>().unwrap_or_default()]},
            "code": {"enum": codes},
        },
    });
    if status == "422" && codes.len() == 1 {
        own["required"] = json!(["errors"]);
    }
    json!({"allOf": [{"$ref": "#/components/schemas/Problem"}, own]})
}

fn problem() -> Value {
    let text = |description: &str| json!({"type": "string", "description": description});
    let or_null = |schema: Value| json!({"anyOf": [schema, {"type": "null"}]});
    let named = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
    let mut members = Map::new();
    for (name, schema) in [
        ("type", text("`urn:docg:problem:` and the code.")),
        ("title", text("The code in English.")),
        (
            "status",
            json!({"type": "integer", "minimum": 400, "maximum": 599, "description": "The status of the answer."}),
        ),
        (
            "detail",
            text("What is wrong and what would be right, in the reader's language."),
        ),
        ("code", text("Stable and machine-readable.")),
        ("error", text("Repeats `title`.")),
        ("message", text("Repeats `detail`.")),
        (
            "correlation_id",
            text("Names the call, for those who look into it."),
        ),
    ] {
        members.insert(name.to_owned(), schema);
    }
    members["code"]["enum"] = codes().collect();
    let always: Value = members.keys().cloned().collect();
    for (name, schema) in [
        (
            "errors",
            json!({"type": "array", "minItems": 1, "items": named("FieldError"), "description": "With `validation_failed`: every value that is wrong."}),
        ),
        (
            "scope",
            text("With `missing_scope`: the scope that is missing."),
        ),
        (
            "from",
            json!({"$ref": "#/components/schemas/Status", "description": "With `invalid_transition`: where the execution stands."}),
        ),
        (
            "allowed",
            json!({"type": "array", "items": named("Call"), "description": "With `invalid_transition`: what is allowed."}),
        ),
        (
            "expected",
            json!({"type": "integer", "description": "With `version_mismatch`: the version of the request."}),
        ),
        (
            "actual",
            json!({"type": "integer", "description": "With `version_mismatch`: the version as it is."}),
        ),
        (
            "approval_id",
            json!({"type": "string", "format": "uuid", "description": "With a refused vote, as all that follows."}),
        ),
        ("decision", or_null(named("Decision"))),
        ("decided_by", json!({"type": ["string", "null"]})),
        ("decided_at", or_null(named("Timestamp"))),
        ("expires_at", or_null(named("Timestamp"))),
        ("your_decision", or_null(named("Decision"))),
        ("your_decision_at", or_null(named("Timestamp"))),
    ] {
        members.insert(name.to_owned(), schema);
    }
    json!({
        "type": "object",
        "description": "What went wrong (RFC 9457). Members beyond the first eight are there where they say something.",
        "required": always,
        "properties": members,
    })
}

fn security_schemes() -> Value {
    json!({
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "Proves who calls. The scopes that an operation needs stand with it; \
                            another organization's things are not found.",
        },
        "stream_token": {
            "type": "apiKey",
            "in": "query",
            "name": "token",
            "description": "A token of `createStreamToken`, for `EventSource`, which cannot send headers.",
        },
    })
}

fn parameters() -> Value {
    let header = |name: &str, schema: Value, description: &str| json!({"name": name, "in": "header", "required": false, "schema": schema, "description": description});
    let text = || json!({"type": "string"});
    json!({
        "OrganizationId": header(
            "X-Organization-ID",
            json!({"type": "string", "format": "uuid"}),
            "Chooses among the organizations of the credentials; needed where there are several.",
        ),
        "CorrelationId": header(
            "X-Correlation-ID",
            text(),
            "Names the chain of calls: 1 to 128 letters, digits, `.`, `_` and `-`. Anything else is replaced.",
        ),
        "Traceparent": header(
            "traceparent",
            text(),
            "W3C Trace Context. Anything else is ignored.",
        ),
        "AcceptLanguage": header(
            "Accept-Language",
            text(),
            "The language of texts for people: English or Brazilian Portuguese.",
        ),
    })
}

fn headers() -> Value {
    let header = |schema: Value, required: bool, description: &str| json!({"schema": schema, "required": required, "description": description});
    json!({
        "CorrelationId": header(
            json!({"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"}),
            true,
            "The one given, or a new one.",
        ),
        "ContentLanguage": header(json!({"enum": ["en", "pt-BR"]}), true, "The language of texts for people."),
        "EntityTag": header(
            json!({"type": "string", "pattern": "^\"[0-9]+\"$"}),
            true,
            "The version, for `If-Match`.",
        ),
        "IdempotencyReplayed": header(
            json!({"enum": ["true"]}),
            false,
            "The call had been made before for its key; this is its first answer.",
        ),
        "RetryAfter": header(json!({"type": "string", "pattern": "^[0-9]+$"}), false, "In seconds."),
        "WwwAuthenticate": header(json!({"type": "string"}), true, "How to prove who calls."),
    })
}
