package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/aviary-rollouts/aviary/router"
	"github.com/aviary-rollouts/aviary/router/api"
)

const (
	agent         = "support-agent"
	token         = "an admin token, long enough"
	feedbackToken = "a feedback token, long enough"
)

// newServer is an admin API with an agent whose stable version is v41.
func newServer(t *testing.T) (string, *router.Router) {
	t.Helper()
	r, err := router.New(router.Options{Agents: map[string]router.AgentOptions{
		agent: {Stable: "v41", Versions: map[string]api.Version{"v41": {URL: "http://127.0.0.1:1"}, "v42": {URL: "http://127.0.0.1:1"}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	h, err := New(r, Options{Token: token, FeedbackToken: feedbackToken})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL, r
}

func newClient(t *testing.T, url, token string) *api.Client {
	t.Helper()
	c, err := api.NewClient(url, token)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAnswersOnTheWire(t *testing.T) {
	t.Parallel()
	const route = `{"stable":"v41","canary":"v42","weight":500,"owner":"o","revision":3,"lease_ms":60000,"on_rollback":"evict","rollback":false,"promoted":false}`
	for _, tt := range []struct {
		name, method, path, token, body string
		status                          int
		code                            string
		contains                        string
	}{
		{"route", "PUT", "/v1/routes/support-agent", token, route, 200, "", `"effective_weight":500`},
		{"no token", "PUT", "/v1/routes/support-agent", "", route, 401, api.CodeUnauthorized, ""},
		{"wrong token", "PUT", "/v1/routes/support-agent", token + "x", route, 401, api.CodeUnauthorized, ""},
		{"feedback token on a route", "PUT", "/v1/routes/support-agent", feedbackToken, route, 401, api.CodeUnauthorized, ""},
		{"unknown agent", "PUT", "/v1/routes/nobody", token, route, 404, api.CodeUnknownAgent, `"known":["support-agent"]`},
		{"unknown version", "PUT", "/v1/routes/support-agent", token, strings.Replace(route, "v42", "v99", 1), 422, api.CodeUnknownVersion, `"known":["v41","v42"]`},
		{"weight as a fraction", "PUT", "/v1/routes/support-agent", token, strings.Replace(route, "500", "0.05", 1), 400, api.CodeInvalid, "0.05"},
		{"weight too large", "PUT", "/v1/routes/support-agent", token, strings.Replace(route, "500", "10001", 1), 422, api.CodeInvalid, "10001"},
		{"unknown key", "PUT", "/v1/routes/support-agent", token, strings.Replace(route, "weight", "wieght", 1), 400, api.CodeInvalid, "wieght"},
		{"two documents", "PUT", "/v1/routes/support-agent", token, route + route, 400, api.CodeInvalid, "one JSON document"},
		{"empty body", "PUT", "/v1/routes/support-agent", token, "", 400, api.CodeInvalid, ""},
		{"large body", "PUT", "/v1/routes/support-agent", token, strings.Repeat(" ", maxBody+1), 413, api.CodeTooLarge, ""},
		{"get route", "GET", "/v1/routes/support-agent", token, "", 200, "", `"lease_expired":false`},
		{"get unknown route", "GET", "/v1/routes/nobody", token, "", 404, api.CodeUnknownAgent, ""},
		{"get routes", "GET", "/v1/routes", token, "", 200, "", `"instance":`},
		{"get agents", "GET", "/v1/agents", token, "", 200, "", `"versions":{"v41":{"url":"http://127.0.0.1:1"}`},
		{"get agents without token", "GET", "/v1/agents", "", "", 401, api.CodeUnauthorized, ""},
		{"put version", "PUT", "/v1/agents/support-agent/versions/v50", token, `{"url":"http://h:1","metadata":{"model":"m"}}`, 200, "", `"v50"`},
		{"put bad version", "PUT", "/v1/agents/support-agent/versions/v50", token, `{"url":"h:1"}`, 422, api.CodeInvalid, ""},
		{"put bad name", "PUT", "/v1/agents/support-agent/versions/..%2Fx", token, `{"url":"http://h:1"}`, 422, api.CodeInvalid, ""},
		{"delete stable", "DELETE", "/v1/agents/support-agent/versions/v41", token, "", 409, api.CodeInUse, ""},
		{"delete unknown", "DELETE", "/v1/agents/support-agent/versions/v99", token, "", 404, api.CodeUnknownVersion, ""},
		{"counters", "GET", "/v1/counters?agent=support-agent", token, "", 200, "", `"tasks":{"completed":0,"failed":0}`},
		{"counters of nobody", "GET", "/v1/counters", token, "", 404, api.CodeUnknownAgent, ""},
		{"feedback", "POST", "/v1/feedback", feedbackToken, `{"agent":"support-agent","version":"v41","task":"completed"}`, 200, "", `"duplicate":false`},
		{"feedback by the admin", "POST", "/v1/feedback", token, `{"agent":"support-agent","version":"v41","task":"completed"}`, 200, "", `"version":"v41"`},
		{"feedback by nobody", "POST", "/v1/feedback", "", `{}`, 401, api.CodeUnauthorized, ""},
		{"feedback, unknown key", "POST", "/v1/feedback", token, `{"agent":"support-agent","version":"v41","tokns":1}`, 422, api.CodeInvalid, "tokns"},
		{"feedback, huge number", "POST", "/v1/feedback", token, `{"agent":"support-agent","version":"v41","tokens":1e999}`, 422, api.CodeInvalid, ""},
		{"large feedback", "POST", "/v1/feedback", token, strings.Repeat(" ", maxFeedback+1), 413, api.CodeTooLarge, ""},
		{"no such path", "GET", "/v1/nothing", token, "", 404, api.CodeNotFound, ""},
		{"wrong method", "POST", "/v1/routes/support-agent", token, "", 405, api.CodeMethodNotAllowed, "PUT"},
		{"health", "GET", "/healthz", "", "", 200, "", ""},
		{"ready", "GET", "/readyz", "", "", 200, "", ""},
		{"metrics", "GET", "/metrics", "", "", 200, "", `agent_requests_total{agent="support-agent",code="200",version="v41"} 0`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			url, _ := newServer(t)
			req, err := http.NewRequest(tt.method, url+tt.path, strings.NewReader(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			if tt.token != "" {
				req.Header.Set("Authorization", "Bearer "+tt.token)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			raw, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != tt.status || !strings.Contains(string(raw), tt.contains) {
				t.Fatalf("answer %d %s (%v), want %d with %q", resp.StatusCode, raw, err, tt.status, tt.contains)
			}
			if tt.code != "" {
				var e api.ErrorBody
				if err := json.Unmarshal(raw, &e); err != nil || e.Code != tt.code || e.Error == "" {
					t.Errorf("error body %s (%v), want code %s", raw, err, tt.code)
				}
			}
		})
	}
}

func TestConflictOnTheWire(t *testing.T) {
	t.Parallel()
	url, _ := newServer(t)
	c := newClient(t, url, token)
	route := api.Route{Stable: "v41", Canary: "v42", Weight: 500, Owner: "run1", Revision: 3, LeaseMillis: 60_000}
	if _, err := c.PutRoute(t.Context(), agent, route); err != nil {
		t.Fatal(err)
	}
	route.Owner, route.Revision = "run2", 9
	raw, err := json.Marshal(route)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPut, url+"/v1/routes/"+agent, strings.NewReader(string(raw)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var body map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
		t.Fatal(err)
	}
	delete(body, "error")
	if diff := cmp.Diff(map[string]any{"code": "ownership_lost", "owner": "run1", "revision": 3.0}, body); diff != "" || resp.StatusCode != 409 {
		t.Errorf("status %d, body (-want +got):\n%s", resp.StatusCode, diff)
	}
	_, err = c.PutRoute(t.Context(), agent, route)
	var conflict *api.Conflict
	if !errors.As(err, &conflict) || conflict.Owner != "run1" || conflict.Revision != 3 {
		t.Errorf("error %v, want a conflict with run1 at 3", err)
	}
}

func TestClientSpeaksAllOfIt(t *testing.T) {
	t.Parallel()
	url, r := newServer(t)
	c, ctx := newClient(t, url, token), t.Context()
	if err := c.Ready(ctx); err != nil {
		t.Error(err)
	}
	if a, err := c.PutVersion(ctx, agent, "v43", api.Version{URL: "http://127.0.0.1:2"}); err != nil || len(a.Versions) != 3 {
		t.Errorf("PutVersion: %+v, %v", a, err)
	}
	route := api.Route{Stable: "v41", Canary: "v43", Weight: 10000, Owner: "run1", Revision: 1}
	put, err := c.PutRoute(ctx, agent, route)
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.Route(ctx, agent)
	if diff := cmp.Diff(put, got); diff != "" || err != nil {
		t.Errorf("Route: %v\n%s", err, diff)
	}
	if all, err := c.Routes(ctx); err != nil || len(all.Routes) != 1 || all.Instance != r.Instance() {
		t.Errorf("Routes: %+v, %v", all, err)
	}
	if err := c.DeleteVersion(ctx, agent, "v43"); !hasCode(err, 409, api.CodeInUse) {
		t.Errorf("DeleteVersion of the canary: %v", err)
	}
	tokens := 12.0
	for _, duplicate := range []bool{false, true} {
		f, err := newClient(t, url, feedbackToken).Feedback(ctx, api.Feedback{Agent: agent, Version: "v43", ID: "1", Tokens: &tokens})
		if err != nil || f.Version != "v43" || f.Duplicate != duplicate {
			t.Errorf("Feedback: %+v, %v", f, err)
		}
	}
	if n, err := c.Counters(ctx, agent); err != nil || n.Versions["v43"].Tokens != (api.Mean{Sum: 12, Count: 1}) {
		t.Errorf("Counters: %+v, %v", n, err)
	}
	route = api.Route{Stable: "v43", Owner: "run1", Revision: 2, Promoted: true}
	if o, err := c.PutRoute(ctx, agent, route); err != nil || o.Stable != "v43" || o.Canary != "" {
		t.Errorf("promotion: %+v, %v", o, err)
	}
	if all, err := c.Agents(ctx); err != nil || len(all.Agents) != 1 || all.Agents[0].Stable != "v43" {
		t.Errorf("Agents: %+v, %v", all, err)
	}
	if _, err := c.PutVersion(ctx, agent, "v44", api.Version{URL: "http://127.0.0.1:2"}); err != nil {
		t.Error(err)
	}
	if err := c.DeleteVersion(ctx, agent, "v44"); err != nil {
		t.Errorf("DeleteVersion: %v", err)
	}
	if _, err := newClient(t, url, "wrong").Agents(ctx); !hasCode(err, 401, api.CodeUnauthorized) {
		t.Errorf("wrong token: %v", err)
	}
}

func hasCode(err error, status int, code string) bool {
	var e *api.Error
	return errors.As(err, &e) && e.Status == status && e.Code == code
}

func TestNewRefusesWeakTokens(t *testing.T) {
	t.Parallel()
	for _, o := range []Options{{}, {Token: "short"}, {Token: token, FeedbackToken: "short"}} {
		if _, err := New(nil, o); err == nil || strings.Contains(err.Error(), "short") {
			t.Errorf("%+v: error %v, want one without the token", o, err)
		}
	}
}

func TestNotReady(t *testing.T) {
	t.Parallel()
	r, err := router.New(router.Options{})
	if err != nil {
		t.Fatal(err)
	}
	h, err := New(r, Options{Token: token, Ready: func() error { return context.Canceled }})
	if err != nil {
		t.Fatal(err)
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/readyz", nil))
	if rec.Code != 503 || !strings.Contains(rec.Body.String(), api.CodeNotReady) {
		t.Errorf("answer %d %s", rec.Code, rec.Body)
	}
}
