//! Runs SQL texts on both databases.

use sea_orm_migration::{prelude::*, sea_orm::DatabaseBackend};

/// PostgreSQL's names of the column types, and SQLite's.
const TYPES: [(&str, &str); 3] = [
    (" UUID", " uuid_text"),
    (" BYTEA", " varbinary_blob(1024)"),
    (" BIGINT", " integer"),
];

/// Runs all statements of `text`, written with PostgreSQL's names of the column types.
pub(crate) async fn run(manager: &SchemaManager<'_>, text: &str) -> Result<(), DbErr> {
    let text = match manager.get_database_backend() {
        DatabaseBackend::Postgres => text.to_owned(),
        _ => TYPES
            .iter()
            .fold(text.to_owned(), |text, (from, to)| text.replace(from, to)),
    };
    let connection = manager.get_connection();
    connection.execute_unprepared(&text).await?;
    Ok(())
}
