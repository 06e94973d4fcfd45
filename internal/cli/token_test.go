package cli

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aviary-rollouts/aviary/router"
	"github.com/aviary-rollouts/aviary/router/api"
	"github.com/aviary-rollouts/aviary/router/proxy"
)

const pinKey = "0123456789abcdef0123456789abcdef"

// keyFiles are a key with white space around it, one that is too short, and one that is empty.
func keyFiles(t *testing.T) (good, short, empty string) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	return write("good", "  "+pinKey+"\n"), write("short", "hush"), write("empty", "\n")
}

func TestToken(t *testing.T) {
	t.Parallel()
	good, short, empty := keyFiles(t)
	const who = "token --agent support-agent --version v42 --key-id k1 "
	for _, tt := range []struct {
		name, args string
		code       int
		err        []string
	}{
		{"file", who + "--key-file " + good, 0, nil},
		{"variable", who + "--key-env PINS --for 30d", 0, nil},
		{"no agent", "token --version v42 --key-id k1 --key-file " + good, 2, []string{"missing: --agent"}},
		{"bad agent", "token --agent ../x --version v42 --key-id k1 --key-file " + good, 2, []string{`--agent "../x"`}},
		{"no version", "token --agent a --key-id k1 --key-file " + good, 2, []string{"missing: --version"}},
		{"bad version", "token --agent a --version V --key-id k1 --key-file " + good, 2, []string{`--version "V"`}},
		{"no key id", "token --agent a --version v42 --key-file " + good, 2, []string{"missing: --key-id"}},
		{"long key id", "token --agent a --version v42 --key-id " + strings.Repeat("k", 33) + " --key-file " + good, 2, []string{"1 to 32"}},
		{"no key", who, 2, []string{"key-file", "key-env"}},
		{"two keys", who + "--key-env PINS --key-file " + good, 2, []string{"key-env key-file"}},
		{"no such file", who + "--key-file " + good + "x", 2, []string{"--key-file", "no such file"}},
		{"empty file", who + "--key-file " + empty, 2, []string{"is empty"}},
		{"short key", who + "--key-file " + short, 2, []string{"at least 16"}},
		{"no such variable", who + "--key-env NOBODY", 2, []string{"--key-env", "NOBODY is not set"}},
		{"a secret as variable", who + "--key-env hush-hush", 2, []string{"of this name is not set"}},
		{"for nothing", who + "--for 0s --key-file " + good, 2, []string{`--for "0s"`, "1m to 30d"}},
		{"for a negative time", who + "--for -1h --key-file " + good, 2, []string{`--for "-1h"`}},
		{"for negative days", who + "--for -1d --key-file " + good, 2, []string{`--for "-1d"`}},
		{"for seconds", who + "--for 59s --key-file " + good, 2, []string{"1m to 30d"}},
		{"for too long", who + "--for 31d --key-file " + good, 2, []string{"1m to 30d"}},
		{"for ever", who + "--for 9999999999d --key-file " + good, 2, []string{"1m to 30d"}},
		{"for soon", who + "--for soon --key-file " + good, 2, []string{"1m to 30d"}},
		{"nothing but a time", "token --for 1h", 2, []string{"missing: --agent, --version, --key-id", "--key-file or --key-env"}},
		{"argument", who + "x --key-file " + good, 2, []string{"unknown command"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := mint(t, &script{now: noon}, tt.args)
			if got.code != tt.code || (got.code == 0) != (got.out != "") {
				t.Errorf("exit code %d, want %d\nstdout: %s\nstderr: %s", got.code, tt.code, got.out, got.err)
			}
			has(t, "stderr", got.err, tt.err...)
			if strings.Contains(got.err+got.out, "hush") || strings.Contains(got.err+got.out, pinKey) {
				t.Errorf("a secret is told: %s%s", got.out, got.err)
			}
		})
	}
}

func mint(t *testing.T, clock *script, args string, change ...func(*Process)) ran {
	t.Helper()
	return command(t.Context(), &fake{}, clock, func(p *Process) {
		p.Env = append(p.Env, "PINS="+pinKey+" \n")
		for _, c := range change {
			c(p)
		}
	}, strings.Fields(args)...)
}

func TestTokenGolden(t *testing.T) {
	t.Parallel()
	const who = "token --agent support-agent --version v42 --for 8h --key-id k1 --key-env PINS"
	human := func(p *Process) { p.Hints = true }
	got := mint(t, &script{now: noon}, who, human)
	golden(t, "token", got.out+"--- stderr\n"+got.err)
	golden(t, "token_help", mint(t, &script{now: noon}, "token --help").out)
	asJSON := mint(t, &script{now: noon}, who+" -o json", human)
	var m minted
	if err := json.Unmarshal([]byte(asJSON.out), &m); err != nil || asJSON.err != "" {
		t.Fatalf("%v, %s", err, asJSON.err)
	}
	if m != (minted{strings.TrimSpace(got.out), "support-agent", "v42", "k1", noon.Add(8 * time.Hour)}) {
		t.Errorf("as JSON %+v", m)
	}
	if alone := mint(t, &script{now: noon}, who); alone.out != got.out || alone.err != "" {
		t.Errorf("without a human: %+v, want the token alone", alone)
	}
}

// TestTokenAtAProxy: what is minted opens the real thing, for its agent and its time, by a key that the gateway has.
func TestTokenAtAProxy(t *testing.T) {
	t.Parallel()
	ring, err := router.NewKeyring(router.Key{ID: "k2", Secret: []byte("another key, that is the first")}, router.Key{ID: "k1", Secret: []byte(pinKey)})
	if err != nil {
		t.Fatal(err)
	}
	say := func(text string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }))
		t.Cleanup(s.Close)
		return s.URL
	}
	stable, canary := say("v41"), say("v42")
	agents := map[string]router.AgentOptions{}
	for _, agent := range []string{"support-agent", "billing-agent"} {
		agents[agent] = router.AgentOptions{Stable: "v41", Versions: map[string]api.Version{"v41": {URL: stable}, "v42": {URL: canary}}}
	}
	r, err := router.New(router.Options{Keys: ring, Agents: agents})
	if err != nil {
		t.Fatal(err)
	}
	p, err := proxy.New(r, proxy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	front := httptest.NewServer(p)
	t.Cleanup(front.Close)
	const who = "token --agent support-agent --version v42 --for 1h --key-env PINS "
	for _, tt := range []struct {
		name, args, agent, want string
		ago                     time.Duration
	}{
		{"its agent", who + "--key-id k1", "support-agent", "v42", 0},
		{"nearly over", who + "--key-id k1", "support-agent", "v42", 58 * time.Minute},
		{"another agent", who + "--key-id k1", "billing-agent", "v41", 0},
		{"expired", who + "--key-id k1", "support-agent", "v41", time.Hour + time.Second},
		{"another key", who + "--key-id k2", "support-agent", "v41", 0},
		{"unknown key", who + "--key-id k3", "support-agent", "v41", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			token := strings.TrimSuffix(mint(t, &script{now: time.Now().Add(-tt.ago)}, tt.args).out, "\n")
			req, err := http.NewRequest(http.MethodGet, front.URL+"/agents/"+tt.agent+"/", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("X-Canary", "v42")
			req.Header.Set("X-Canary-Token", token)
			resp, err := front.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if body, err := io.ReadAll(resp.Body); err != nil || string(body) != tt.want || resp.StatusCode != 200 {
				t.Errorf("answer %d %q, %v; want %s", resp.StatusCode, body, err, tt.want)
			}
		})
	}
}
