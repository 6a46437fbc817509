//! Which key or operator made which key: the same rules on SQLite and on PostgreSQL.

use domain::id::{self, KeyId, TenantId};
use futures::future::{join, join_all};
use wxgate_store::{Actor, AuditFilter, Descendants, MAX_KEYS, NewKey, NewKeyError, Origin, Store};

use crate::{
    common::{at, on_both},
    tenants::{first, tenant},
};

on_both! {
    a_revoked_key_takes_along_all_generations
    a_kept_generation_has_another_maker
    no_key_is_made_with_a_revoked_one
    a_tenant_has_so_many_keys_in_force
}

fn key(number: u16) -> KeyId {
    id::new(at(0), number, 1)
}

fn made_by(number: u16, maker: Actor) -> NewKey {
    NewKey {
        id: key(number),
        name: format!("key {number}"),
        secret_hash: vec![7; 32],
        scopes: "keys:write".parse().unwrap(),
        expires_at: None,
        created_by: maker,
    }
}

async fn make(store: &Store, owner: TenantId, number: u16, maker: Actor) {
    let door = store.tenant(owner);
    door.create_key(made_by(number, maker), at(1))
        .await
        .unwrap();
}

/// 1 made 2, 2 made 3 and 5, 3 made 4. The command line made 1 and 6.
async fn family(store: &Store) -> TenantId {
    let owner = tenant(store, 1).await.id;
    make(store, owner, 1, Actor::Cli).await;
    make(store, owner, 6, Actor::Cli).await;
    for (number, maker) in [(2, 1), (3, 2), (4, 3), (5, 2)] {
        make(store, owner, number, Actor::Key(key(maker))).await;
    }
    owner
}

async fn in_force(store: &Store, owner: TenantId) -> Vec<KeyId> {
    let keys = store.tenant(owner).keys(&first(200)).await.unwrap().items;
    let active = keys.into_iter().filter(|key| key.revoked_at.is_none());
    let mut active: Vec<_> = active.map(|key| key.id).collect();
    active.sort_unstable();
    active
}

async fn a_revoked_key_takes_along_all_generations(store: Store) {
    let owner = family(&store).await;
    let line = Origin::CLI.did("key.revoke", &key(1));
    let door = store.tenant(owner).with_audit_line(line);
    let mut revoked = door
        .revoke_key(key(1), Descendants::Revoke, at(5))
        .await
        .unwrap();
    revoked.sort_unstable();
    let family = [1, 2, 3, 4, 5].map(key);
    assert_eq!(revoked, family);
    assert_eq!(in_force(&store, owner).await, [key(6)]);
    let log = door
        .audit(&AuditFilter::default(), &first(99))
        .await
        .unwrap();
    let mut targets: Vec<_> = log
        .items
        .iter()
        .map(|line| line.line.target.clone())
        .collect();
    targets.sort_unstable();
    let mut wanted = family.map(|key| key.to_string());
    wanted.sort_unstable();
    assert_eq!(targets, wanted);
    assert!(
        log.items
            .iter()
            .all(|line| line.line.actor == "cli" && line.at == at(5))
    );
    let again = door.revoke_key(key(1), Descendants::Revoke, at(6)).await;
    assert_eq!(again.unwrap(), []);

    // The revocation of an operator's key includes the descendants in all tenants. A key revoked earlier keeps the
    // time.
    let platform = store.platform();
    let operators = NewKey {
        scopes: "operator".parse().unwrap(),
        ..made_by(10, Actor::Cli)
    };
    platform
        .create_operator_key(operators, at(7))
        .await
        .unwrap();
    let second = tenant(&store, 2).await.id;
    make(&store, second, 11, Actor::Operator(key(10))).await;
    make(&store, second, 12, Actor::Key(key(11))).await;
    let alone = store.tenant(second);
    alone
        .revoke_key(key(11), Descendants::Keep, at(8))
        .await
        .unwrap();
    let revoked = platform
        .revoke_operator_key(key(10), Descendants::Revoke, at(9))
        .await
        .unwrap();
    assert_eq!(revoked, [key(10), key(12)]);
    let known = platform.credential(key(11)).await.unwrap().key;
    assert_eq!(known.revoked_at, Some(at(8)));
}

async fn a_kept_generation_has_another_maker(store: Store) {
    let owner = family(&store).await;
    let door = store.tenant(owner);
    let revoked = door.revoke_key(key(2), Descendants::Keep, at(5)).await;
    assert_eq!(revoked.unwrap(), [key(2)]);
    assert_eq!(in_force(&store, owner).await, [1, 3, 4, 5, 6].map(key));
    let heir = store.platform().credential(key(3)).await.unwrap().key;
    assert_eq!(heir.created_by, Some(Actor::Key(key(1))));
    let mut revoked = door
        .revoke_key(key(1), Descendants::Revoke, at(6))
        .await
        .unwrap();
    revoked.sort_unstable();
    assert_eq!(revoked, [1, 3, 4, 5].map(key));
}

async fn no_key_is_made_with_a_revoked_one(store: Store) {
    let owner = family(&store).await;
    let door = store.tenant(owner);
    // At the same moment: in either order, no descendant stays in force.
    let (revoked, made) = join(
        door.revoke_key(key(1), Descendants::Revoke, at(5)),
        door.create_key(made_by(20, Actor::Key(key(4))), at(5)),
    )
    .await;
    revoked.unwrap();
    assert!(
        matches!(made, Ok(_) | Err(NewKeyError::MakerRevoked)),
        "{made:?}"
    );
    assert_eq!(in_force(&store, owner).await, [key(6)]);
    let late = door
        .create_key(made_by(21, Actor::Key(key(4))), at(6))
        .await;
    assert!(matches!(late, Err(NewKeyError::MakerRevoked)), "{late:?}");
}

async fn a_tenant_has_so_many_keys_in_force(store: Store) {
    let (owner, other) = (tenant(&store, 1).await.id, tenant(&store, 2).await.id);
    let most = u16::try_from(MAX_KEYS).unwrap();
    let ended = NewKey {
        expires_at: Some(at(2)),
        ..made_by(999, Actor::Cli)
    };
    store.tenant(owner).create_key(ended, at(1)).await.unwrap();
    for number in 1..most - 1 {
        make(&store, owner, number, Actor::Cli).await;
    }
    // Several keys at the same moment: the limit stops the last of these. The ended key does not count.
    let last = (0..5).map(|number| {
        let door = store.tenant(owner);
        async move {
            let new = made_by(most + number, Actor::Cli);
            door.create_key(new, at(3)).await
        }
    });
    let made = join_all(last).await;
    let full = |made: &&Result<_, NewKeyError>| matches!(made, Err(NewKeyError::Full));
    assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 2);
    assert_eq!(made.iter().filter(full).count(), 3);
    make(&store, other, 500, Actor::Cli).await;
    let door = store.tenant(owner);
    door.revoke_key(key(1), Descendants::Revoke, at(4))
        .await
        .unwrap();
    let one_more = made_by(600, Actor::Cli);
    door.create_key(one_more, at(5)).await.unwrap();
}
