//! The error of reads.

use store::StoreError;

/// Why a read failed.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// The tenant has no item of this kind and name.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// The database failed.
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for DeliveryError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound(what) => Self::NotFound(what),
            other => Self::Store(other),
        }
    }
}
