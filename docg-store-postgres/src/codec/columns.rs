//! Rows of many records as one array for each column, which a statement unpacks with `unnest`.

/// The names of columns, with the types of their arrays.
pub(crate) type Columns = &'static [(&'static str, &'static str)];

/// SQL for columns as a table `alias`: `unnest` over the parameters from number `first` on. The arrays of
/// all groups have the same length, and stand side by side in the table.
pub(crate) fn unnest(groups: &[Columns], first: usize, alias: &str) -> String {
    let columns: Vec<_> = groups.iter().copied().flatten().zip(first..).collect();
    let parameters: Vec<_> = columns
        .iter()
        .map(|((_, sql), number)| format!("${number}::{sql}"))
        .collect();
    let names: Vec<_> = columns.iter().map(|((name, _), _)| *name).collect();
    format!(
        "unnest({}) AS {alias} ({})",
        parameters.join(", "),
        names.join(", ")
    )
}

/// Declares a struct of columns: `field: Rust type = "array type"`. Arrays of JSON are sent as text.
macro_rules! columns {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty = $sql:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default)]
        pub(crate) struct $name { $(pub(crate) $field: Vec<$type>),+ }

        impl $name {
            pub(crate) const COLUMNS: $crate::codec::Columns = &[$((stringify!($field), $sql)),+];
            /// The number of parameters of the columns.
            #[allow(dead_code, reason = "a statement needs no count of its last columns")]
            pub(crate) const COUNT: usize = Self::COLUMNS.len();

            /// SQL for the columns as a table `alias`, with the parameters from number `first` on.
            #[allow(dead_code, reason = "some columns are only a part of a wider table")]
            pub(crate) fn unnest(first: usize, alias: &str) -> String {
                $crate::codec::unnest(&[Self::COLUMNS], first, alias)
            }

            pub(crate) fn append(&mut self, other: &Self) {
                $(self.$field.extend_from_slice(&other.$field);)+
            }

            pub(crate) fn bind(self, arguments: &mut sqlx::postgres::PgArguments) -> Result<(), sqlx::Error> {
                use sqlx::Arguments;
                $(arguments.add(self.$field).map_err(sqlx::Error::Encode)?;)+
                Ok(())
            }
        }
    };
}
pub(crate) use columns;

#[cfg(test)]
mod tests {
    use super::{Columns, unnest};

    #[test]
    fn groups_of_columns_stand_side_by_side_with_one_run_of_parameters() {
        let names: Columns = &[("id", "uuid[]"), ("name", "text[]::json[]")];
        let ages: Columns = &[("age", "int8[]")];
        assert_eq!(
            unnest(&[names, ages], 3, "i"),
            "unnest($3::uuid[], $4::text[]::json[], $5::int8[]) AS i (id, name, age)"
        );
        assert_eq!(unnest(&[ages], 1, "r"), "unnest($1::int8[]) AS r (age)");
    }
}
