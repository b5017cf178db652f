//! Finds the faults of a query plan in the form of `EXPLAIN (FORMAT JSON)`.

use serde_json::Value;

/// How many of a node's rows its parent needs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Few,
    All,
}

/// The places where a plan does more than necessary.
#[derive(Default)]
pub(crate) struct Faults {
    /// Reads of a whole table, or of an index without a condition and without a limit above it.
    pub(crate) reads: Vec<String>,
    /// Sorts of all rows below a limit that needs only a few.
    pub(crate) sorts: Vec<String>,
}

pub(crate) fn faults(plan: &Value, is_small: impl Fn(&str) -> bool + Copy) -> Faults {
    let mut found = Faults::default();
    walk(&plan[0]["Plan"], Asked::All, is_small, &mut found);
    found
}

fn text<'a>(node: &'a Value, key: &str) -> &'a str {
    node[key].as_str().unwrap_or_default()
}

fn children(node: &Value) -> &[Value] {
    node["Plans"].as_array().map_or(&[], Vec::as_slice)
}

fn walk(node: &Value, asked: Asked, is_small: impl Fn(&str) -> bool + Copy, found: &mut Faults) {
    let (kind, table) = (text(node, "Node Type"), text(node, "Relation Name"));
    match kind {
        "Seq Scan" if !is_small(table) => found.reads.push(format!("reads all of {table}")),
        "Index Scan" | "Index Only Scan" | "Bitmap Index Scan" => {
            let index = text(node, "Index Name");
            let has_condition = !node["Index Cond"].is_null();
            if !has_condition && asked == Asked::All && !is_small(table) {
                found.reads.push(format!("reads all of {index}"));
            }
        }
        "Sort" if asked == Asked::Few && reads(node) => {
            let keys = &node["Sort Key"];
            found
                .sorts
                .push(format!("sorts all by {keys} before it takes a few"));
        }
        _ => {}
    }
    for child in children(node) {
        let passes_on = match kind {
            "LockRows" | "Subquery Scan" | "Result" | "Append" | "Merge Append" => true,
            "Nested Loop" => text(child, "Parent Relationship") == "Outer",
            _ => false,
        };
        // An expression needs only one row of its subquery, or only whether there is a row.
        let is_scalar = matches!(text(child, "Parent Relationship"), "InitPlan" | "SubPlan")
            && !text(child, "Subplan Name").starts_with("CTE");
        let asked = match kind {
            _ if is_scalar => Asked::Few,
            "Limit" => Asked::Few,
            _ if passes_on => asked,
            _ => Asked::All,
        };
        walk(child, asked, is_small, found);
    }
}

/// True if a node reads rows of a table without a limit below it.
fn reads(node: &Value) -> bool {
    match text(node, "Node Type") {
        "Limit" => false,
        kind if kind.ends_with("Scan") && !node["Relation Name"].is_null() => true,
        _ => children(node).iter().any(reads),
    }
}
