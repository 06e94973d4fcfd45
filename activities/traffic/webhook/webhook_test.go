package webhook_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aviary-rollouts/aviary/activities/traffic"
	"github.com/aviary-rollouts/aviary/activities/traffic/traffictest"
	"github.com/aviary-rollouts/aviary/activities/traffic/webhook"
	"github.com/aviary-rollouts/aviary/examples/webhook-receiver/receiver"
	"github.com/aviary-rollouts/aviary/rollout"
)

const secret = "hush, a long one"

var route = rollout.Route{
	Agent: "support-agent", Stable: "v41", Canary: "v42", Weight: 500, Owner: "o", Revision: 3, Lease: rollout.Duration(time.Minute),
}

// sample is the sample receiver, served.
func sample(t *testing.T) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(receiver.New([]byte(secret), map[string][]string{"support-agent": {"v41", "v42"}}, slog.New(slog.DiscardHandler)))
	t.Cleanup(server.Close)
	return server
}

func driver(t *testing.T, url, secret string) *webhook.Driver {
	t.Helper()
	d, err := webhook.New(webhook.Settings{URL: url, Secret: secret, Timeout: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestConformance runs the suite against the sample receiver.
func TestConformance(t *testing.T) {
	t.Parallel()
	traffictest.Run(t, func(t *testing.T) traffictest.Plane {
		return traffictest.Plane{Driver: driver(t, sample(t).URL, secret), Agent: "support-agent", Stable: "v41", Canary: "v42"}
	})
}

func TestNew(t *testing.T) {
	t.Parallel()
	for _, s := range []webhook.Settings{{Secret: secret}, {URL: "ftp://x", Secret: secret}, {URL: "http://x"}} {
		if _, err := webhook.New(s); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("settings %q: error %v, want one without the secret", s.URL, err)
		}
	}
}

// TestOthersAreRefused: whoever does not know the secret moves nothing, whatever else of a signed request he has.
func TestOthersAreRefused(t *testing.T) {
	t.Parallel()
	server := sample(t)
	err := driver(t, server.URL, "a guess").Apply(t.Context(), route)
	if err == nil || !strings.Contains(err.Error(), "does the receiver know the secret") {
		t.Errorf("error %v, want it to ask for the secret", err)
	}
	var final *traffic.Rejected
	if errors.As(err, &final) {
		t.Error("a wrong secret ends a rollout, want it tried again")
	}
	now := strconv.FormatInt(time.Now().Unix(), 10)
	old := strconv.FormatInt(time.Now().Add(-time.Hour).Unix(), 10)
	const path, body = "/v1/agents/support-agent/route", `{"stable":"v41","canary":"v42","weight":10000,"owner":"m","revision":1}`
	for what, h := range map[string][3]string{ // timestamp, signature, body
		"no signature":       {now, "", body},
		"another body":       {now, webhook.Sign([]byte(secret), now, http.MethodPut, path, []byte("{}")), body},
		"another path":       {now, webhook.Sign([]byte(secret), now, http.MethodPut, "/v1/agents/other/route", []byte(body)), body},
		"another method":     {now, webhook.Sign([]byte(secret), now, http.MethodGet, path, []byte(body)), body},
		"another time":       {old, webhook.Sign([]byte(secret), now, http.MethodPut, path, []byte(body)), body},
		"an hour ago":        {old, webhook.Sign([]byte(secret), old, http.MethodPut, path, []byte(body)), body},
		"no time":            {"", webhook.Sign([]byte(secret), "", http.MethodPut, path, []byte(body)), body},
		"the scheme's other": {now, strings.Replace(webhook.Sign([]byte(secret), now, http.MethodPut, path, []byte(body)), "v2=", "v1=", 1), body},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, server.URL+path, strings.NewReader(h[2]))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set(webhook.HeaderTimestamp, h[0])
		req.Header.Set(webhook.HeaderSignature, h[1])
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: %d, want 401", what, resp.StatusCode)
		}
	}
	if seen, err := driver(t, server.URL, secret).Read(t.Context(), route); err != nil || seen.Weight != 0 {
		t.Errorf("%+v, %v; want nothing moved", seen, err)
	}
}

// TestAnswers says what becomes of every kind of answer.
func TestAnswers(t *testing.T) {
	t.Parallel()
	const rejected, lost, busy, passing = "rejected", "lost", "busy", "passing"
	for name, c := range map[string]struct {
		status int
		header http.Header
		body   string
		want   string
		says   string
	}{
		"bad request":       {400, nil, `{"error":"no such thing"}`, rejected, "no such thing"},
		"unknown":           {404, nil, `{"error":"no agent"}`, rejected, "no agent"},
		"too large":         {413, nil, `{"error":"4 KiB at most"}`, rejected, "413"},
		"a proxy's 404":     {404, nil, `<html>no such backend</html>`, passing, "404"},
		"an empty 422":      {422, nil, ``, passing, "422"},
		"can't be":          {422, nil, `{"error":"line\nbreak \u0007"}`, rejected, "line break"},
		"no secret":         {401, nil, `{}`, passing, "secret"},
		"forbidden":         {403, nil, `<html>`, passing, "secret"},
		"another's":         {409, nil, `{"error":"no","owner":"x","revision":7}`, lost, "x at revision 7"},
		"a bare conflict":   {409, nil, ``, passing, "409"},
		"too many":          {429, nil, ``, busy, "429"},
		"in a while":        {503, http.Header{"Retry-After": {"7"}}, ``, busy, "503"},
		"down":              {503, nil, ``, passing, "503"},
		"broken":            {500, nil, `{"error":"oops"}`, passing, "oops"},
		"elsewhere":         {307, http.Header{"Location": {"https://example.com/"}}, ``, passing, "307"},
		"a proxy's page":    {200, nil, `<html>ok</html>`, passing, "contract"},
		"another agent":     {200, nil, `{"agent":"other"}`, passing, "no sense"},
		"a weight too high": {200, nil, `{"agent":"support-agent","weight":10001}`, passing, "no sense"},
		"endless":           {200, nil, `{"agent":"` + strings.Repeat("x", 2<<20) + `"}`, passing, "larger than allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				for k, v := range c.header {
					w.Header()[k] = v
				}
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			}))
			t.Cleanup(server.Close)
			d := driver(t, strings.Replace(server.URL, "://", "://user:pass@", 1)+"/hook-secret", secret)
			_, read := d.Read(t.Context(), route)
			for what, err := range map[string]error{"apply": d.Apply(t.Context(), route), "read": read} {
				if got := kind(err); got != c.want || !strings.Contains(fmt.Sprint(err), c.says) {
					t.Errorf("%s: %s error %v, want a %s one that says %q", what, got, err, c.want, c.says)
				}
				for _, hidden := range []string{secret, "hook-secret", "pass@"} {
					if strings.Contains(fmt.Sprint(err), hidden) {
						t.Errorf("%s: error %v tells %s", what, err, hidden)
					}
				}
			}
		})
	}
}

func kind(err error) string {
	var rejected *traffic.Rejected
	var lost *traffic.OwnershipLost
	var busy *traffic.Busy
	switch {
	case err == nil:
		return "no"
	case errors.As(err, &rejected):
		return "rejected"
	case errors.As(err, &lost):
		return "lost"
	case errors.As(err, &busy):
		return "busy"
	}
	return "passing"
}

// TestWhatIsNotInForce: a receiver that says yes and does something else is not believed.
func TestWhatIsNotInForce(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"another weight":  `{"agent":"support-agent","stable":"v41","canary":"v42","weight":400,"effective_weight":400,"owner":"o","revision":3}`,
		"not in force":    `{"agent":"support-agent","stable":"v41","canary":"v42","weight":500,"effective_weight":0,"owner":"o","revision":3}`,
		"before":          `{"agent":"support-agent","stable":"v41","canary":"v42","weight":500,"effective_weight":500,"owner":"o","revision":2}`,
		"another's":       `{"agent":"support-agent","stable":"v41","canary":"v42","weight":500,"effective_weight":500,"owner":"x","revision":9}`,
		"another version": `{"agent":"support-agent","stable":"v41","canary":"v43","weight":500,"effective_weight":500,"owner":"o","revision":3}`,
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }))
		t.Cleanup(server.Close)
		if err := driver(t, server.URL, secret).Apply(t.Context(), route); kind(err) != "passing" || !strings.Contains(err.Error(), "reads back") {
			t.Errorf("%s: error %v, want a passing one that says what reads back", name, err)
		}
	}
}

// TestListLeavesNonsenseOut: one agent that makes no sense does not hide another's canary from the sweep.
func TestListLeavesNonsenseOut(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"agents":[{"agent":"Not A Name"},{"agent":"a","weight":-1},{"agent":"support-agent","stable":"v41","weight":500,"effective_weight":500}]}`)
	}))
	t.Cleanup(server.Close)
	all, err := driver(t, server.URL, secret).List(t.Context())
	if err != nil || len(all) != 1 || all[0].Agent != "support-agent" || all[0].Weight != 500 {
		t.Errorf("%+v, %v", all, err)
	}
}

// TestEveryRenewalHasItsKey: a receiver that drops what it has seen must not drop a renewal.
func TestEveryRenewalHasItsKey(t *testing.T) {
	t.Parallel()
	keys := map[string]bool{}
	inner := sample(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			keys[r.Header.Get(webhook.HeaderKey)] = true
		}
		inner.Config.Handler.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	d := driver(t, server.URL, secret)
	for range 3 {
		if err := d.Apply(t.Context(), route); err != nil {
			t.Fatal(err)
		}
	}
	if len(keys) != 3 || keys[""] {
		t.Errorf("keys %v, want three", keys)
	}
}

// TestUnreachable: an error on the way tells the host, and nothing else of the address.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	d := driver(t, "http://user:pass@127.0.0.1:1/hook-secret", secret)
	err := d.Apply(t.Context(), route)
	if kind(err) != "passing" || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("error %v, want a passing one that names the host", err)
	}
	for _, hidden := range []string{secret, "hook-secret", "pass@"} {
		if strings.Contains(fmt.Sprint(err), hidden) {
			t.Errorf("error %v tells %s", err, hidden)
		}
	}
}

// TestEscapedBase: an address with an escaped path is asked as it is written, and signed so.
func TestEscapedBase(t *testing.T) {
	t.Parallel()
	asked := make(chan string, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		asked <- req.URL.EscapedPath()
		body, _ := io.ReadAll(req.Body)
		if want := webhook.Sign([]byte(secret), req.Header.Get(webhook.HeaderTimestamp), req.Method, req.URL.EscapedPath(), body); req.Header.Get(webhook.HeaderSignature) != want {
			t.Errorf("the signature is not of the path %s", req.URL.EscapedPath())
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	t.Cleanup(server.Close)
	_ = driver(t, server.URL+"/team%2Fa/", secret).Apply(t.Context(), route)
	if got := <-asked; got != "/team%2Fa/v1/agents/support-agent/route" {
		t.Errorf("asked %s", got)
	}
}
