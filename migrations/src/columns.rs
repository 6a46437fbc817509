//! The types of columns.

use sea_orm_migration::prelude::{ColumnDef, IntoIden};

pub(crate) fn text<T: IntoIden>(name: T) -> ColumnDef {
    ColumnDef::new(name).text().not_null().to_owned()
}

pub(crate) fn maybe_text<T: IntoIden>(name: T) -> ColumnDef {
    ColumnDef::new(name).text().to_owned()
}

pub(crate) fn uuid<T: IntoIden>(name: T) -> ColumnDef {
    ColumnDef::new(name).uuid().not_null().to_owned()
}

pub(crate) fn maybe_uuid<T: IntoIden>(name: T) -> ColumnDef {
    ColumnDef::new(name).uuid().to_owned()
}

pub(crate) fn int<T: IntoIden>(name: T) -> ColumnDef {
    ColumnDef::new(name).big_integer().not_null().to_owned()
}

pub(crate) fn maybe_int<T: IntoIden>(name: T) -> ColumnDef {
    ColumnDef::new(name).big_integer().to_owned()
}

/// A sealed value is a few dozen bytes longer than the plain value.
pub(crate) fn blob<T: IntoIden>(name: T) -> ColumnDef {
    ColumnDef::new(name).var_binary(1024).not_null().to_owned()
}

pub(crate) fn maybe_blob<T: IntoIden>(name: T) -> ColumnDef {
    ColumnDef::new(name).var_binary(1024).to_owned()
}
