//! The same of how much there was.

use async_trait::async_trait;
use jiff::civil::Date;

use super::metrics::Operation;
use super::{CatalogError, Metered};
use crate::catalog::ProjectSize;
use crate::catalog::usage::{DayUsage, UsageFilter, Usages};

#[async_trait]
impl Usages for Metered {
    async fn keep_usage(&self, day: Date, sizes: &[ProjectSize]) -> Result<(), CatalogError> {
        self.measured(Operation::KeepUsage, self.inner.keep_usage(day, sizes))
            .await
    }

    async fn usage(&self, filter: &UsageFilter) -> Result<Vec<DayUsage>, CatalogError> {
        self.measured(Operation::Usage, self.inner.usage(filter))
            .await
    }
}
