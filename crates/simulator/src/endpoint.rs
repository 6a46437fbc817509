//! WeChat's endpoints that the simulator serves.

/// One endpoint; also the key of every counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CallEndpoint {
    Token,
    StableToken,
    /// Not a separate path: `stable_token` with `force_refresh`, counted separately.
    ForcedToken,
    SubscribeSend,
    WxopenSend,
    TemplateSend,
    GetTemplate,
    WxopenTemplates,
    PrivateTemplates,
    QuotaGet,
    ClearQuota,
    ClearQuotaV2,
    CodeToSession,
    ApiDomainIp,
    /// Every other path: answers 40066.
    Unknown,
}

impl CallEndpoint {
    /// All endpoints, in the order of [`index`](Self::index).
    pub(crate) const ALL: [Self; 15] = [
        Self::Token,
        Self::StableToken,
        Self::ForcedToken,
        Self::SubscribeSend,
        Self::WxopenSend,
        Self::TemplateSend,
        Self::GetTemplate,
        Self::WxopenTemplates,
        Self::PrivateTemplates,
        Self::QuotaGet,
        Self::ClearQuota,
        Self::ClearQuotaV2,
        Self::CodeToSession,
        Self::ApiDomainIp,
        Self::Unknown,
    ];

    /// The number of endpoints, for arrays.
    pub(crate) const COUNT: usize = Self::ALL.len();

    /// The endpoint of a request's path.
    pub(crate) fn of_path(path: &str) -> Self {
        match path {
            "/cgi-bin/message/subscribe/send" => Self::SubscribeSend,
            "/cgi-bin/message/wxopen/template/send" => Self::WxopenSend,
            "/cgi-bin/message/template/send" => Self::TemplateSend,
            "/cgi-bin/token" => Self::Token,
            "/cgi-bin/stable_token" => Self::StableToken,
            "/wxaapi/newtmpl/gettemplate" => Self::GetTemplate,
            "/cgi-bin/wxopen/template/list" => Self::WxopenTemplates,
            "/cgi-bin/template/get_all_private_template" => Self::PrivateTemplates,
            "/cgi-bin/openapi/quota/get" => Self::QuotaGet,
            "/cgi-bin/clear_quota" => Self::ClearQuota,
            "/cgi-bin/clear_quota/v2" => Self::ClearQuotaV2,
            "/sns/jscode2session" => Self::CodeToSession,
            "/cgi-bin/get_api_domain_ip" => Self::ApiDomainIp,
            _ => Self::Unknown,
        }
    }

    /// The name of the endpoint's counter: the path, or another name for the two variants without a path.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Token => "/cgi-bin/token",
            Self::StableToken => "/cgi-bin/stable_token",
            Self::ForcedToken => "/cgi-bin/stable_token#force_refresh",
            Self::SubscribeSend => "/cgi-bin/message/subscribe/send",
            Self::WxopenSend => "/cgi-bin/message/wxopen/template/send",
            Self::TemplateSend => "/cgi-bin/message/template/send",
            Self::GetTemplate => "/wxaapi/newtmpl/gettemplate",
            Self::WxopenTemplates => "/cgi-bin/wxopen/template/list",
            Self::PrivateTemplates => "/cgi-bin/template/get_all_private_template",
            Self::QuotaGet => "/cgi-bin/openapi/quota/get",
            Self::ClearQuota => "/cgi-bin/clear_quota",
            Self::ClearQuotaV2 => "/cgi-bin/clear_quota/v2",
            Self::CodeToSession => "/sns/jscode2session",
            Self::ApiDomainIp => "/cgi-bin/get_api_domain_ip",
            Self::Unknown => "unknown",
        }
    }

    /// The endpoint's index in an array of counters.
    pub(crate) fn index(self) -> usize {
        match self {
            Self::Token => 0,
            Self::StableToken => 1,
            Self::ForcedToken => 2,
            Self::SubscribeSend => 3,
            Self::WxopenSend => 4,
            Self::TemplateSend => 5,
            Self::GetTemplate => 6,
            Self::WxopenTemplates => 7,
            Self::PrivateTemplates => 8,
            Self::QuotaGet => 9,
            Self::ClearQuota => 10,
            Self::ClearQuotaV2 => 11,
            Self::CodeToSession => 12,
            Self::ApiDomainIp => 13,
            Self::Unknown => 14,
        }
    }

    /// Whether the endpoint is one of the three that send a message to a user.
    pub(crate) fn is_send(self) -> bool {
        matches!(
            self,
            Self::SubscribeSend | Self::WxopenSend | Self::TemplateSend
        )
    }

    /// Whether WeChat expects GET here; the other endpoints expect POST.
    pub(crate) fn is_get(self) -> bool {
        matches!(
            self,
            Self::Token
                | Self::GetTemplate
                | Self::PrivateTemplates
                | Self::CodeToSession
                | Self::ApiDomainIp
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_knows_its_place_and_its_path() {
        for (place, endpoint) in CallEndpoint::ALL.into_iter().enumerate() {
            assert_eq!(endpoint.index(), place);
            if endpoint.name().starts_with('/') && endpoint != CallEndpoint::ForcedToken {
                assert_eq!(CallEndpoint::of_path(endpoint.name()), endpoint);
            }
        }
        assert_eq!(
            CallEndpoint::of_path("/cgi-bin/menu/get"),
            CallEndpoint::Unknown
        );
    }
}
