//! The global `collectgarbage`: what Luau's own shell offers of it.
//!
//! Sits beside the modules of this folder. The sandbox leaves only `count`; scripts of other systems
//! also ask for a whole collection, to see what they have dropped go.
//!
//! Invariants
//! - Nothing that a script says stops the collector: memory stays bounded whatever it does.
//!
//! Not here: when memory is collected (the VM), the limit that scripts have (`vm/guard.rs`).

/// Replaces `collectgarbage` before the sandbox closes.
pub(crate) fn install_global(lua: &mlua::Lua) -> mlua::Result<()> {
    let inner: mlua::Function = lua.globals().get("collectgarbage")?;
    let outer = lua.create_function(move |lua, option: Option<mlua::LuaString>| {
        let wants_all = option
            .as_ref()
            .is_none_or(|option| option.as_bytes() == b"collect");
        if !wants_all {
            return inner.call::<mlua::MultiValue>(option);
        }
        lua.gc_collect()?;
        Ok(mlua::MultiValue::new())
    })?;
    lua.globals().raw_set("collectgarbage", outer)
}
