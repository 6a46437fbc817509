//! The calls that list an account's templates.

use domain::{
    message::Channel,
    secret::AccessToken,
    template::{Template, TemplateKind},
};
use reqwest::{Method, Request};
use serde::Serialize;

use crate::{
    Client,
    answer::{self, CallError},
    client::with_token,
    listed,
    transport::{self, ExchangeResult},
};

/// Templates on one page of the list of form-id templates, the maximum that WeChat allows.
const PAGE: usize = 20;
/// The most pages that are read: an account could have 25 templates.
const PAGES: usize = 10;

#[derive(Serialize)]
struct PageBody {
    offset: usize,
    count: usize,
}

impl Client {
    /// All templates of the account for messages of a channel. WeChat allows few of these calls a day: call hourly at most.
    ///
    /// - `GET /wxaapi/newtmpl/gettemplate`: subscribe messages.
    /// - `POST /cgi-bin/wxopen/template/list`: form-id messages; WeChat has withdrawn this call in 2020.
    /// - `GET /cgi-bin/template/get_all_private_template`: an official account's.
    pub async fn templates(
        &self,
        token: &AccessToken,
        channel: Channel,
    ) -> Result<Vec<Template>, CallError> {
        match channel {
            Channel::Subscribe => {
                let path = "/wxaapi/newtmpl/gettemplate";
                self.list(token, path, None, TemplateKind::OneTime).await
            }
            Channel::Official => {
                let path = "/cgi-bin/template/get_all_private_template";
                self.list(token, path, None, TemplateKind::Official).await
            }
            Channel::Template => self.form_id_templates(token).await,
        }
    }

    async fn form_id_templates(&self, token: &AccessToken) -> Result<Vec<Template>, CallError> {
        let mut all = Vec::new();
        for page in 0..PAGES {
            let body = PageBody {
                offset: page * PAGE,
                count: PAGE,
            };
            let path = "/cgi-bin/wxopen/template/list";
            let read = self.list(token, path, Some(&body), TemplateKind::FormId);
            let read = read.await?;
            let is_last = read.len() < PAGE;
            all.extend(read);
            if is_last {
                break;
            }
        }
        Ok(all)
    }

    async fn list(
        &self,
        token: &AccessToken,
        path: &str,
        body: Option<&PageBody>,
        kind: TemplateKind,
    ) -> Result<Vec<Template>, CallError> {
        let heard = self.ask_for_list(token, path, body).await;
        let list = answer::list_result(heard, token.expose())?;
        Ok(listed::templates(list, kind).collect())
    }

    async fn ask_for_list(
        &self,
        token: &AccessToken,
        path: &str,
        body: Option<&PageBody>,
    ) -> ExchangeResult {
        let Some(url) = self.route(path) else {
            return ExchangeResult::Unclear(format!("{path} cannot follow WeChat's base URL"));
        };
        let url = with_token(&url, token);
        let request = match body.map(serde_json::to_vec) {
            None => Request::new(Method::GET, url),
            Some(Ok(body)) => Self::json_post(url, body),
            Some(Err(error)) => return ExchangeResult::Unclear(error.to_string()),
        };
        transport::exchange_list(self.http(), request).await
    }
}
