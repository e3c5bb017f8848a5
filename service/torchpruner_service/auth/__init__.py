"""Who may do what: API keys, scopes, tenants, rate limits and quotas."""
