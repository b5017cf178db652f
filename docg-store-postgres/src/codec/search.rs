//! The words of an execution that a search compares, in the form of PostgreSQL's text search.

use std::fmt::Write as _;

use docg_core::{
    ids::OrganizationId,
    query::{ExecutionFilter, words},
    run::Execution,
};

/// The `tsvector` of an execution: the words of its title, its id and its correlation id.
pub(crate) fn search_vector(execution: &Execution) -> String {
    let organization = execution.organization_id;
    let mut vector = String::new();
    push(&mut vector, organization, '=', &execution.id.to_string());
    vector.push(' ');
    push(&mut vector, organization, '~', &execution.correlation_id);
    for word in words(execution.title.as_deref().unwrap_or_default()) {
        vector.push(' ');
        push(&mut vector, organization, ':', &word);
    }
    vector
}

/// The `tsquery` of a filter; `None` if it neither searches nor names a correlation id.
pub(crate) fn search_query(
    organization: OrganizationId,
    filter: &ExecutionFilter,
) -> Option<String> {
    let mut query = String::new();
    if let Some(search) = &filter.search {
        query.push('(');
        push(&mut query, organization, '=', &search.text);
        query.push_str(" | ");
        push(&mut query, organization, '~', &search.text);
        for (index, word) in search.words.iter().enumerate() {
            query.push_str(if index == 0 { " | (" } else { " & " });
            push(&mut query, organization, ':', word);
            query.push_str(":*");
        }
        query.push_str(if search.words.is_empty() { ")" } else { "))" });
    }
    if let Some(id) = &filter.correlation_id {
        query.push_str(if query.is_empty() { "" } else { " & " });
        push(&mut query, organization, '~', id);
    }
    (!query.is_empty()).then_some(query)
}

/// Appends a quoted lexeme. A backslash and a quote are doubled.
fn push(out: &mut String, organization: OrganizationId, kind: char, text: &str) {
    // Writing to a String cannot fail.
    let _ = write!(out, "'{}{kind}", organization.0.simple());
    for c in text.chars() {
        if matches!(c, '\'' | '\\') {
            out.push(c);
        }
        out.push(c);
    }
    out.push('\'');
}
