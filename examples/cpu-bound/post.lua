-- For wrk: every request posts a password.
wrk.method = "POST"
wrk.body = "secret"
