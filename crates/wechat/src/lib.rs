//! wxgate-wechat
