//! `wxgate tenant`.

use api::views::{self, Page, Timestamp};
use clap::Subcommand;
use domain::tenant::{TenantLimits, TenantStatus};
use store::{Tenant, TenantPatch};

use super::{CommandContext, TenantWord, all, tenant_word};
use crate::{
    failure::Failure,
    output::{Output, card, table},
    settings::Settings,
};

/// The subcommands of `wxgate tenant`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a tenant
    Create {
        /// A name for the tenant
        name: String,
    },
    /// List all tenants
    List,
    /// Show one tenant
    Show {
        /// The id (ten_…) or name of the tenant
        #[arg(value_name = "TENANT", value_parser = tenant_word)]
        tenant: TenantWord,
    },
    /// Suspend a tenant: refuse its credentials and stop sending its messages
    Suspend {
        /// The id (ten_…) or name of the tenant
        #[arg(value_name = "TENANT", value_parser = tenant_word)]
        tenant: TenantWord,
    },
    /// Resume a suspended tenant
    Resume {
        /// The id (ten_…) or name of the tenant
        #[arg(value_name = "TENANT", value_parser = tenant_word)]
        tenant: TenantWord,
    },
}

/// Runs the subcommand.
pub(crate) async fn run(
    settings: &Settings,
    output: Output,
    command: Command,
) -> Result<(), Failure> {
    let context = CommandContext::open(settings).await?;
    let tenancy = &context.tenancy;
    let tenant = match command {
        Command::Create { name } => {
            tenancy
                .create_tenant(&name, TenantLimits::default())
                .await?
        }
        Command::Show { tenant } => tenancy.tenant(context.tenant(&tenant).await?).await?,
        Command::Suspend { tenant } => {
            let id = context.tenant(&tenant).await?;
            tenancy
                .update_tenant(id, status(TenantStatus::Suspended))
                .await?
        }
        Command::Resume { tenant } => {
            let id = context.tenant(&tenant).await?;
            tenancy
                .update_tenant(id, status(TenantStatus::Active))
                .await?
        }
        Command::List => {
            let tenants = all(async |page| tenancy.tenants(&page).await).await?;
            context.close().await;
            return list(output, tenants);
        }
    };
    context.close().await;
    let lines = lines(&tenant);
    output.result(&views::Tenant::from(tenant), || card(&lines))
}

fn status(status: TenantStatus) -> TenantPatch {
    TenantPatch {
        status: Some(status),
        ..TenantPatch::default()
    }
}

fn word(status: TenantStatus) -> String {
    match status {
        TenantStatus::Active => "active",
        TenantStatus::Suspended => "suspended",
    }
    .to_owned()
}

fn lines(tenant: &Tenant) -> [(&'static str, String); 6] {
    let per_day = tenant
        .limits
        .messages_per_day
        .map_or("no limit".to_owned(), |limit| limit.to_string());
    [
        ("id", tenant.id.to_string()),
        ("name", tenant.name.clone()),
        ("status", word(tenant.status)),
        (
            "requests per second",
            tenant.limits.requests_per_second.to_string(),
        ),
        ("messages per day", per_day),
        ("created", Timestamp(tenant.created_at).to_string()),
    ]
}

fn list(output: Output, tenants: Vec<Tenant>) -> Result<(), Failure> {
    let row = |tenant: &Tenant| {
        vec![
            tenant.id.to_string(),
            word(tenant.status),
            Timestamp(tenant.created_at).to_string(),
            tenant.name.clone(),
        ]
    };
    let rows: Vec<_> = tenants.iter().map(row).collect();
    output.result(
        &Page::all(tenants.into_iter().map(views::Tenant::from).collect()),
        || table(&["id", "status", "created", "name"], &rows),
    )
}
