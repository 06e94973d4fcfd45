package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/schema/sqlite"
)

func TestRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	text := filepath.Join(dir, "text.db")
	if err := os.WriteFile(text, []byte(strings.Repeat("this is not a database\n", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	taken := listen(t)
	tests := []struct {
		name     string
		args     []string
		wantCode int
		want     []string // all of them in the message
	}{
		{"unknown flag", []string{"--prot", "0"}, exitUsage, []string{"-prot", "--help"}},
		{"argument", []string{"start"}, exitUsage, []string{`"start"`, "flags only"}},
		{"port out of range", []string{"--port", "70000"}, exitUsage, []string{"--port 70000", "from 0 to 65535"}},
		{"port no number", []string{"--port", "http"}, exitUsage, []string{`"http"`, "port"}},
		{"UI port out of range", []string{"--ui-port", "-2"}, exitUsage, []string{"--ui-port -2", "from -1 to 65535"}},
		{"one port for both", []string{"--port", "9000", "--ui-port", "9000"}, exitUsage, []string{"--port and --ui-port", "9000"}},
		{"log level", []string{"--log-level", "loud"}, exitUsage, []string{`"loud"`, "debug, info, warn, error or never"}},
		{"namespace", []string{"--namespace", "a b"}, exitUsage, []string{`--namespace "a b"`}},
		{"port taken", []string{"--port", taken}, exitFailed, []string{"port " + taken, "is taken", "--port 0"}},
		{"UI port taken", []string{"--port", "0", "--ui-port", taken}, exitFailed, []string{"port " + taken, "is taken", "--ui-port 0"}},
		{"host", []string{"--host", "no-such-host.invalid"}, exitFailed, []string{`--host "no-such-host.invalid"`}},
		{"no folder", []string{"--port", "0", "--db-filename", filepath.Join(dir, "none", "x.db")}, exitFailed,
			[]string{"--db-filename", filepath.Join(dir, "none"), "does not exist"}},
		{"a folder", []string{"--port", "0", "--db-filename", dir}, exitFailed, []string{"--db-filename", "is a folder"}},
		{"no database", []string{"--port", "0", "--ui-port", "0", "--db-filename", text}, exitFailed,
			[]string{"--db-filename " + text, "not a database"}},
		{"address file without folder", []string{"--port", "0", "--addr-file", filepath.Join(dir, "none", "a.json")}, exitFailed,
			[]string{"--addr-file", "does not exist"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			var stdout, stderr bytes.Buffer
			if got := run(ctx, tt.args, &stdout, &stderr); got != tt.wantCode {
				t.Errorf("exit code %d, want %d", got, tt.wantCode)
			}
			for _, want := range tt.want {
				if !strings.Contains(stderr.String(), want) {
					t.Errorf("message %q does not say %q", stderr.String(), want)
				}
			}
			if stdout.Len() > 0 {
				t.Errorf("stdout %q, want nothing", stdout.String())
			}
		})
	}
}

// listen takes a free port for the length of the test.
func listen(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

func TestHelpNamesEveryFlag(t *testing.T) {
	t.Parallel()
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"--help"}, &stdout, &stderr); code != exitOK {
		t.Errorf("exit code %d, want %d", code, exitOK)
	}
	for _, want := range []string{"--host", "--port", "--ui-port", "--headless", "--db-filename", "--namespace", "--addr-file", "--log-level"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("help does not name %s", want)
		}
	}
}

func TestRefusesASecondServerOnTheSameFile(t *testing.T) {
	t.Parallel()
	db := filepath.Join(t.TempDir(), "state.db")
	first := boot(t, "--headless", "--db-filename", db)
	second := launch(t, "--port", "0", "--headless", "--db-filename", db)
	if code := second.end(t, 30*time.Second); code != exitFailed {
		t.Errorf("exit code of the second %d, want %d", code, exitFailed)
	}
	if msg := second.stderr.String(); !strings.Contains(msg, "in use by another process") {
		t.Errorf("message %q does not say that the file is in use", msg)
	}
	first.terminate(t, os.Interrupt)
}

// A database that another tool made has the namespace, but not the search attributes.
func TestRegistersMissingAttributes(t *testing.T) {
	t.Parallel()
	db := filepath.Join(t.TempDir(), "foreign.db")
	foreignDatabase(t, db, nil)
	p := boot(t, "--headless", "--db-filename", db)
	resp, err := p.dial(t).OperatorService().ListSearchAttributes(t.Context(),
		&operatorservice.ListSearchAttributesRequest{Namespace: "default"})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range searchAttributes() {
		if got := resp.GetCustomAttributes()[name]; got != want {
			t.Errorf("attribute %s is %s, want %s", name, got, want)
		}
	}
}

func TestRefusesAttributeOfAnotherType(t *testing.T) {
	t.Parallel()
	db := filepath.Join(t.TempDir(), "foreign.db")
	foreignDatabase(t, db, map[string]enums.IndexedValueType{"CanaryWeight": enums.INDEXED_VALUE_TYPE_KEYWORD})
	p := launch(t, "--port", "0", "--headless", "--db-filename", db)
	if code := p.end(t, 30*time.Second); code != exitFailed {
		t.Errorf("exit code %d, want %d", code, exitFailed)
	}
	if msg := p.stderr.String(); !strings.Contains(msg, "CanaryWeight") || !strings.Contains(msg, "want a Double") {
		t.Errorf("message %q does not name the attribute and the type wanted", msg)
	}
}

func foreignDatabase(t *testing.T, file string, attributes map[string]enums.IndexedValueType) {
	t.Helper()
	sql := &config.SQL{PluginName: "sqlite", DatabaseName: file, ConnectAttributes: map[string]string{"mode": "rwc"}}
	if err := sqlite.SetupSchema(sql); err != nil {
		t.Fatal(err)
	}
	ns, err := sqlite.NewNamespaceConfig(clusterName, "default", false, attributes)
	if err != nil {
		t.Fatal(err)
	}
	if err := sqlite.CreateNamespaces(sql, ns); err != nil {
		t.Fatal(err)
	}
}

// It is not parallel: a process that another test forks holds a copy of every listener until it executes its program.
func TestFreePortsDiffer(t *testing.T) {
	seen := map[int]bool{}
	for range 20 {
		port, err := freePort("127.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		if seen[port] {
			t.Fatalf("port %d was given out twice", port)
		}
		seen[port] = true
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			t.Fatalf("a free port can't be listened on: %v", err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
