package httpx_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aviary-rollouts/aviary/internal/httpx"
)

func TestBodyLimit(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, strings.Repeat("x", len(r.URL.Path)))
	}))
	t.Cleanup(srv.Close)
	client := httpx.NewClient(httpx.Settings{MaxBody: 10})
	for path, want := range map[string]error{"/12345678": nil, "/123456789": nil, "/1234567890": httpx.ErrBodyTooLarge} {
		resp, err := client.Get(srv.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if !errors.Is(err, want) || len(body) > 10 {
			t.Errorf("%s: read %d bytes, error %v, want %v", path, len(body), err, want)
		}
	}
}

func TestRedirects(t *testing.T) {
	t.Parallel()
	var reached bool
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	t.Cleanup(other.Close)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/away":
			http.Redirect(w, r, other.URL+"/secret-path", http.StatusTemporaryRedirect)
		case "/near":
			http.Redirect(w, r, "/ok", http.StatusTemporaryRedirect)
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusTemporaryRedirect)
		}
	}))
	t.Cleanup(srv.Close)
	client := httpx.NewClient(httpx.Settings{})
	for path, ok := range map[string]bool{"/away": false, "/near": true, "/loop": false} {
		resp, err := client.Post(srv.URL+path, "text/plain", strings.NewReader("secret"))
		if (err == nil) != ok {
			t.Errorf("%s: error %v, want ok %v", path, err, ok)
		}
		if err == nil {
			resp.Body.Close()
		}
	}
	if reached {
		t.Error("the other host was reached")
	}
}

func TestTimeoutAndRedact(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	t.Cleanup(func() { close(release); srv.Close() })
	address := strings.Replace(srv.URL, "http://", "http://user:hunter2@", 1) + "/services/T0/hunter2?key=hunter2"
	_, err := httpx.NewClient(httpx.Settings{Timeout: 50 * time.Millisecond}).Get(address) //nolint:bodyclose // it fails
	err = httpx.Redact(err)
	if err == nil || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "user") {
		t.Errorf("error %v, want one without secrets", err)
	}
	var netErr interface{ Timeout() bool }
	if !errors.As(err, &netErr) || !netErr.Timeout() {
		t.Errorf("error %v is no timeout", err)
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v is not a deadline", err)
	}
	_, err = url.Parse(strings.Replace(srv.URL, "http://127.0.0.1", "http://user:hunter2@host:port", 1))
	if err := httpx.Redact(err); strings.Contains(err.Error(), "hunter2") {
		// The inner error of a bad port repeats only the port.
		t.Errorf("error %v tells the password", err)
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"":                              0,
		"0":                             0,
		"30":                            30 * time.Second,
		"-1":                            0,
		"soon":                          0,
		"99999999":                      httpx.MaxRetryAfter,
		"Fri, 02 Jan 2026 03:05:05 GMT": time.Minute,
		"Fri, 02 Jan 2026 03:03:05 GMT": 0,
	} {
		if got := httpx.RetryAfter(http.Header{"Retry-After": {value}}, now); got != want {
			t.Errorf("RetryAfter(%q) = %s, want %s", value, got, want)
		}
	}
}
