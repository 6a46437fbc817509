//! What operators see of templates.

use serde_json::Value;
use simulator::{Effect, Fault, ListedTemplate};

use crate::{
    callbacks::counted,
    world::{Mode, TEMPLATE, World, eventually},
};

const APP: &str = "wx00000000000000a1";

both_modes!(syncs_and_drifts_are_counted);

async fn syncs_and_drifts_are_counted(mode: Mode) {
    let world = World::start(mode).await;
    let lists = |keys: &[&str]| {
        let templates = vec![ListedTemplate::one_time(TEMPLATE, keys)];
        let wechat = world.wechat();
        wechat.change_app(APP, |app| app.templates = templates);
    };
    lists(&["thing1"]);
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let synced = "wxgate_template_syncs_total{outcome=\"synced\"}";
    eventually("the first sync", || async {
        (counted(&world, synced).await == 1).then_some(())
    })
    .await;
    let path = format!("/v1/apps/{APP}/templates/sync");
    let sync = async || tenant.client.post(&path, &Value::Null).await;
    lists(&["thing1", "thing2"]);
    sync().await.expect(200);
    assert_eq!(counted(&world, synced).await, 2);
    let changed = "wxgate_template_drifts_total{change=\"changed\"}";
    assert_eq!(counted(&world, changed).await, 1);
    let busy = Effect::Errcode {
        errcode: -1,
        errmsg: None,
    };
    let fault = Fault::always(busy).for_path("/wxaapi/newtmpl/gettemplate");
    world.wechat().add_fault(fault);
    sync().await.problem(502, "wechat_rejected");
    let failed = "wxgate_template_syncs_total{outcome=\"failed\"}";
    assert_eq!(counted(&world, failed).await, 1);
}
