package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aviary-rollouts/aviary/router/api"
)

// output is a writer that many may write to and read.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// beGateway in the environment makes this binary the gateway itself.
const beGateway = "AVIARY_TEST_BE_GATEWAY"

func TestMain(m *testing.M) {
	if os.Getenv(beGateway) != "" {
		main()
	}
	os.Exit(m.Run())
}

const token = "an admin token, long enough"

// process is a gateway that runs within the test.
type process struct {
	proxy, admin string
	client       *api.Client
	stop         context.CancelFunc
	done         chan int
	err          *output
}

// settingsFile writes the settings of an agent with two versions into dir.
func settingsFile(t *testing.T, dir, url, more string) string {
	t.Helper()
	write(t, filepath.Join(dir, "token"), token+"\n")
	write(t, filepath.Join(dir, "pins"), "0123456789abcdef0123456789abcdef\n")
	path := filepath.Join(dir, "gateway.yaml")
	write(t, path, fmt.Sprintf(`
listen: 127.0.0.1:0
admin_listen: 127.0.0.1:0
admin_token_file: %[1]s/token
state_file: %[1]s/state.json
pin_keys: [{id: k1, file: %[1]s/pins}]
agents:
  support-agent:
    stable: v41
    versions:
      v41: {url: %[2]s/v41}
      v42: {url: %[2]s/v42}
%[3]s`, dir, url, more))
	return path
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func start(t *testing.T, settings string) *process {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{stop: cancel, done: make(chan int, 1), err: &output{}}
	addrFile := filepath.Join(t.TempDir(), "addr.json")
	go func() {
		p.done <- run(ctx, []string{"--config", settings, "--addr-file", addrFile}, stdio{out: io.Discard, err: p.err})
	}()
	t.Cleanup(cancel)
	p.reach(t, addrFile)
	return p
}

// reach waits for the addresses.
func (p *process) reach(t *testing.T, addrFile string) {
	t.Helper()
	var addr struct{ Proxy, Admin string }
	eventually(t, "the addresses are written", func() bool {
		raw, err := os.ReadFile(addrFile)
		if err != nil {
			select {
			case code := <-p.done:
				t.Fatalf("exit %d: %s", code, p.err)
			default:
			}
			return false
		}
		return json.Unmarshal(raw, &addr) == nil
	})
	p.proxy, p.admin = addr.Proxy, addr.Admin
	client, err := api.NewClient(addr.Admin, token)
	if err != nil {
		t.Fatal(err)
	}
	p.client = client
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (p *process) exit(t *testing.T) int {
	t.Helper()
	select {
	case code := <-p.done:
		return code
	case <-time.After(10 * time.Second):
		t.Fatal("the gateway does not stop")
		return -1
	}
}

func (p *process) ask(t *testing.T) string {
	t.Helper()
	resp, err := http.Get("http://" + p.proxy + "/agents/support-agent/chat")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func newAgents(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { io.WriteString(w, req.URL.Path) }))
	t.Cleanup(s.Close)
	return s.URL
}

func TestRolloutOverARestart(t *testing.T) {
	t.Parallel()
	settings := settingsFile(t, t.TempDir(), newAgents(t), "")
	p := start(t, settings)
	if got := p.ask(t); got != "/v41/chat" {
		t.Errorf("at first: %q", got)
	}
	route := api.Route{Stable: "v41", Canary: "v42", Weight: 10000, Owner: "run1", Revision: 1, LeaseMillis: 60_000}
	if _, err := p.client.PutRoute(t.Context(), "support-agent", route); err != nil {
		t.Fatal(err)
	}
	if got := p.ask(t); got != "/v42/chat" {
		t.Errorf("at full weight: %q", got)
	}
	counters, err := p.client.Counters(t.Context(), "support-agent")
	if err != nil || counters.Versions["v41"].Requests != 1 || counters.Versions["v42"].Requests != 1 {
		t.Errorf("counters %+v, %v", counters.Versions, err)
	}
	p.stop()
	if code := p.exit(t); code != 0 {
		t.Errorf("exit %d: %s", code, p.err)
	}
	for _, line := range []string{"msg=\"gateway started\" proxy_addr=" + p.proxy + " admin_addr=" + p.admin, "msg=\"gateway stopped\""} {
		if !strings.Contains(p.err.String(), line) {
			t.Errorf("%q is missing in the log:\n%s", line, p.err)
		}
	}
	if strings.Contains(p.err.String(), token) {
		t.Error("the log holds the token")
	}

	p = start(t, settings)
	if got := p.ask(t); got != "/v41/chat" {
		t.Errorf("cold after a restart: %q", got)
	}
	route.Weight, route.Revision = 0, 0
	if _, err := p.client.PutRoute(t.Context(), "support-agent", route); err == nil {
		t.Error("an older revision passed after the restart")
	}
	promoted := api.Route{Stable: "v42", Owner: "run1", Revision: 2, Promoted: true}
	if _, err := p.client.PutRoute(t.Context(), "support-agent", promoted); err != nil {
		t.Fatal(err)
	}
	p.stop()
	p.exit(t)
	if got := start(t, settings).ask(t); got != "/v42/chat" {
		t.Errorf("after a promotion and a restart: %q", got)
	}
}

func TestStopLetsStreamsFinishUntilTheDeadline(t *testing.T) {
	t.Parallel()
	for name, shutdown := range map[string]string{"finishes": "10s", "is cut": "50ms"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			finish := make(chan struct{})
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				io.WriteString(w, "begun\n")
				w.(http.Flusher).Flush()
				select {
				case <-finish:
					io.WriteString(w, "ended\n")
				case <-req.Context().Done():
				}
			}))
			t.Cleanup(s.Close)
			p := start(t, settingsFile(t, t.TempDir(), s.URL, "timeouts: {shutdown: "+shutdown+"}\n"))
			resp, err := http.Get("http://" + p.proxy + "/agents/support-agent/stream")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			lines := bufio.NewReader(resp.Body)
			if line, err := lines.ReadString('\n'); err != nil || line != "begun\n" {
				t.Fatalf("first line %q, %v", line, err)
			}
			p.stop()
			if name == "finishes" {
				eventually(t, "the gateway says it is stopping", func() bool { return p.client.Ready(t.Context()) != nil })
				close(finish)
			}
			rest, err := io.ReadAll(lines)
			if finished := err == nil && string(rest) == "ended\n"; finished != (name == "finishes") {
				t.Errorf("rest %q, %v", rest, err)
			}
			if code := p.exit(t); code != 0 {
				t.Errorf("exit %d: %s", code, p.err)
			}
		})
	}
}

func TestLeaseRunsOutByItself(t *testing.T) {
	t.Parallel()
	p := start(t, settingsFile(t, t.TempDir(), newAgents(t), ""))
	route := api.Route{Stable: "v41", Canary: "v42", Weight: 10000, Owner: "run1", Revision: 1, LeaseMillis: 100}
	if _, err := p.client.PutRoute(t.Context(), "support-agent", route); err != nil {
		t.Fatal(err)
	}
	eventually(t, "stable takes over", func() bool { return p.ask(t) == "/v41/chat" })
	o, err := p.client.Route(t.Context(), "support-agent")
	if err != nil || !o.LeaseExpired || o.EffectiveWeight != 0 || o.Weight != 10000 {
		t.Errorf("observed %+v, %v", o, err)
	}
}

func TestRunRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	good := settingsFile(t, dir, "http://127.0.0.1:1", "")
	other := func(name, old, new string) string {
		raw, err := os.ReadFile(good)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name+".yaml")
		write(t, path, strings.Replace(string(raw), old, new, 1))
		return path
	}
	write(t, filepath.Join(dir, "empty"), "")
	for _, tt := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"no settings", nil, 2, "--config"},
		{"unknown flag", []string{"--port", "1"}, 2, "not defined"},
		{"argument", []string{"--config", good, "x"}, 2, "no arguments"},
		{"missing file", []string{"--config", filepath.Join(dir, "none.yaml")}, 1, "none.yaml"},
		{"unknown key", []string{"--config", other("key", "listen:", "lisen:")}, 1, "lisen"},
		{"no admin token", []string{"--config", other("token", "admin_token_file", "feedback_token_file")}, 1, "admin_token"},
		{"empty token file", []string{"--config", other("empty", "/token", "/empty")}, 1, "is empty"},
		{"missing token file", []string{"--config", other("missing", "/token", "/none")}, 1, "none"},
		{"short pin key", []string{"--config", other("pins", "/pins", "/gateway.yaml.short")}, 1, "gateway.yaml.short"},
		{"stable unknown", []string{"--config", other("stable", "stable: v41", "stable: v99")}, 1, "v99"},
		{"bad url", []string{"--config", other("url", "http://127.0.0.1:1/v41", "ftp://x")}, 1, "v41"},
		{"bad listen", []string{"--config", other("listen", "listen: 127.0.0.1:0", "listen: 127.0.0.1:http-nonsense")}, 1, "listen"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var errs output
			if code := run(t.Context(), tt.args, stdio{out: io.Discard, err: &errs}); code != tt.code || !strings.Contains(errs.String(), tt.says) {
				t.Errorf("exit %d, want %d with %q:\n%s", code, tt.code, tt.says, errs.String())
			}
		})
	}
}

func TestVersionAndHelp(t *testing.T) {
	t.Parallel()
	var out, errs output
	if code := run(t.Context(), []string{"--version"}, stdio{out: &out, err: &errs}); code != 0 || !strings.HasPrefix(out.String(), "gateway ") {
		t.Errorf("exit %d, %q", code, out.String())
	}
	if code := run(t.Context(), []string{"--help"}, stdio{out: &out, err: &errs}); code != 0 || !strings.Contains(errs.String(), "-config") {
		t.Errorf("exit %d, %q", code, errs.String())
	}
}
