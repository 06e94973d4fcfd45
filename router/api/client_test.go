package api

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestNewClientAddresses(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"127.0.0.1:9901": "http://127.0.0.1:9901", "https://h:1/base": "https://h:1/base", "http://u:secret@h": "http://u:xxxxx@h",
		"ftp://h": "", "http://": "", "http://h?x=1": "", "http://h#x": "", "http://h:\x00": "",
	} {
		c, err := NewClient(address, "")
		if (err == nil) != (want != "") || (err == nil && c.Address() != want) {
			t.Errorf("%q: %v, want %q", address, err, want)
		}
	}
}

func TestClientErrors(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		status     int
		body       string
		header     string
		want       string
		retryAfter time.Duration
	}{
		"the api's":        {422, `{"code":"invalid","error":"weight 10001"}`, "", "router answered 422 invalid: weight 10001", 0},
		"a proxy's page":   {502, "<html>bad gateway</html>", "", "<html>bad gateway", 0},
		"asks for a pause": {503, `{"code":"not_ready","error":"stopping"}`, "7", "not_ready", 7 * time.Second},
		"no JSON":          {200, "hello", "", "decode the router's answer", 0},
		"far too long":     {200, strings.Repeat(" ", maxAnswer+1), "", "more than", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				if req.Header.Get("Authorization") != "Bearer tok" || req.URL.EscapedPath() != "/base/v1/routes/a%2Fb" {
					t.Errorf("request %s %v", req.URL, req.Header)
				}
				if tt.header != "" {
					w.Header().Set("Retry-After", tt.header)
				}
				w.WriteHeader(tt.status)
				io.WriteString(w, tt.body)
			}))
			t.Cleanup(s.Close)
			c, err := NewClient(s.URL+"/base", "tok")
			if err != nil {
				t.Fatal(err)
			}
			_, err = c.Route(t.Context(), "a/b")
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v, want %q", err, tt.want)
			}
			var e *Error
			if errors.As(err, &e) && (e.Status != tt.status || e.RetryAfter != tt.retryAfter) {
				t.Errorf("error %+v", e)
			}
		})
	}
}

func TestClientTimeoutAndSecrets(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) { <-req.Context().Done() }))
	t.Cleanup(s.Close)
	c, err := NewClient(strings.Replace(s.URL, "http://", "http://user:hunter2@", 1), "tok", WithTimeout(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Routes(t.Context()); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("error %v, want a timeout without the password", err)
	}
}
