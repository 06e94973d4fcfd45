// Package httpx builds the HTTP clients of the drivers, providers and notifiers: bounded in time and size, never led to
// another host, and silent about the secrets that an address may hold.
package httpx

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// MaxRetryAfter bounds what RetryAfter believes.
const MaxRetryAfter = time.Hour

// ErrBodyTooLarge is the error of reading a body beyond the client's limit.
var ErrBodyTooLarge = errors.New("body is larger than allowed")

// Settings of a Client. The zero value is usable.
type Settings struct {
	Timeout   time.Duration     // of a whole exchange, the body included; 0: 10 s
	MaxBody   int64             // of an answer, in bytes; 0: 1 MiB
	TLS       *tls.Config       // of the transport of its own; nil: the defaults
	Transport http.RoundTripper // underneath; nil: a transport of its own with short dial timeouts
}

// NewClient is an HTTP client that gives up after the timeout, reads no more than MaxBody of an answer, and follows no redirect
// to another host, port or scheme, so that credentials and payloads stay where they were sent.
func NewClient(s Settings) *http.Client {
	if s.Timeout == 0 {
		s.Timeout = 10 * time.Second
	}
	if s.MaxBody == 0 {
		s.MaxBody = 1 << 20
	}
	if s.Transport == nil {
		t := NewTransport(s.Timeout)
		t.TLSClientConfig = s.TLS.Clone()
		s.Transport = t
	}
	return &http.Client{
		Timeout:       s.Timeout,
		Transport:     &limiter{next: s.Transport, limit: s.MaxBody},
		CheckRedirect: sameHost,
	}
}

// NewTransport is the transport of a client without one: with short limits on what may hang before a request is sent.
func NewTransport(timeout time.Duration) *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: min(timeout, 5*time.Second), KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:   5 * time.Second,
		MaxIdleConns:          32,
		MaxIdleConnsPerHost:   8,
		IdleConnTimeout:       90 * time.Second,
		ExpectContinueTimeout: time.Second,
		ForceAttemptHTTP2:     true,
	}
}

func sameHost(req *http.Request, via []*http.Request) error {
	first := via[0].URL
	if req.URL.Host != first.Host || req.URL.Scheme != first.Scheme {
		return fmt.Errorf("refuse a redirect from %s to %s", Host(first.String()), Host(req.URL.String()))
	}
	if len(via) >= 3 {
		return errors.New("refuse a fourth redirect")
	}
	return nil
}

type limiter struct {
	next  http.RoundTripper
	limit int64
}

func (l *limiter) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := l.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	resp.Body = &limitedBody{ReadCloser: resp.Body, left: l.limit}
	return resp, nil
}

type limitedBody struct {
	io.ReadCloser
	left int64
}

// Read reads one byte more than allowed before it complains, so that a body of exactly the limit passes.
func (b *limitedBody) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, ErrBodyTooLarge
	}
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	b.left -= int64(n)
	if b.left < 0 {
		return n + int(b.left), ErrBodyTooLarge
	}
	return n, err
}

// Redact takes all but the scheme and host out of the address in an error of net/http or net/url. What it wraps stays reachable
// for errors.Is and errors.As; words around it are dropped.
func Redact(err error) error {
	var u *url.Error
	if !errors.As(err, &u) {
		return err
	}
	return &url.Error{Op: u.Op, URL: Host(u.URL), Err: u.Err}
}

// Host is an address without user, path and query: "https://example.org:8443". It is "an address" when raw is not a URL.
func Host(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return "an address"
	}
	return u.Scheme + "://" + u.Host
}

// RetryAfter reads a Retry-After header, in seconds or as a date. It is 0 when absent, past or unreadable, and at most
// MaxRetryAfter.
func RetryAfter(h http.Header, now time.Time) time.Duration {
	s := h.Get("Retry-After")
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return min(time.Duration(n)*time.Second, MaxRetryAfter)
	}
	if t, err := http.ParseTime(s); err == nil {
		return min(max(0, t.Sub(now)), MaxRetryAfter)
	}
	return 0
}
