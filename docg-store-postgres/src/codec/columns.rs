//! Rows of many records as one array for each column, which a statement unpacks with `unnest`.

/// Declares a struct of columns: `field: Rust type = "array type"`. Arrays of JSON are sent as text.
macro_rules! columns {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty = $sql:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default)]
        pub(crate) struct $name { $(pub(crate) $field: Vec<$type>),+ }

        impl $name {
            /// The number of parameters of the columns.
            #[allow(dead_code, reason = "not needed of the last ones")]
            pub(crate) const COUNT: usize = [$($sql),+].len();

            /// SQL for the columns as a table `alias`: `unnest` over the parameters from number `first` on.
            pub(crate) fn unnest(first: usize, alias: &str) -> String {
                let parameters: Vec<String> = [$($sql),+]
                    .iter()
                    .zip(first..)
                    .map(|(sql, number)| format!("${number}::{sql}"))
                    .collect();
                let names = [$(stringify!($field)),+].join(", ");
                format!("unnest({}) AS {alias} ({names})", parameters.join(", "))
            }

            /// The names of the columns, qualified with `alias`.
            #[allow(dead_code, reason = "needed where a table is passed on")]
            pub(crate) fn names(alias: &str) -> String {
                let names = [$(stringify!($field)),+].map(|name| format!("{alias}.{name}"));
                names.join(", ")
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
