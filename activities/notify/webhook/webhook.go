// Package webhook tells the humans through a webhook of their own: it posts every notice as signed JSON.
//
// A request carries
//
//	Content-Type:       application/json
//	Idempotency-Key:    the notice's ID, the same at every retry: the receiver drops what it has seen
//	X-Aviary-Timestamp: seconds since 1970, of this try
//	X-Aviary-Signature: v1= and the hex HMAC-SHA256, by the shared secret, of timestamp + "." + body
//
// and the body is a rollout.Notice. Any 2xx answer means that it was taken. Verify is the receiver's side.
package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/aviary-rollouts/aviary/activities/notify"
	"github.com/aviary-rollouts/aviary/internal/httpx"
)

// The headers of a request.
const (
	HeaderKey       = "Idempotency-Key"
	HeaderTimestamp = "X-Aviary-Timestamp"
	HeaderSignature = "X-Aviary-Signature"
)

// defaultPause is how long to wait when a receiver is busy and does not say for how long.
const defaultPause = 10 * time.Second

// Settings of a Notifier.
type Settings struct {
	URL       string            // http or https; it is never told in an error beyond its host
	Secret    string            // shared with the receiver; empty: requests are not signed
	Timeout   time.Duration     // of one request; 0: 10 s
	Transport http.RoundTripper // nil: the default
}

// Notifier posts to one URL. It is safe for concurrent use.
type Notifier struct {
	url    string
	secret []byte
	client *http.Client
}

var _ notify.Notifier = (*Notifier)(nil)

// New is a Notifier. Errors: a URL that is not http or https.
func New(s Settings) (*Notifier, error) {
	u, err := url.Parse(s.URL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, errors.New("webhook: the address is no URL, want http://… or https://…")
	}
	client := httpx.NewClient(httpx.Settings{Timeout: s.Timeout, MaxBody: 64 << 10, Transport: s.Transport})
	return &Notifier{url: s.URL, secret: []byte(s.Secret), client: client}, nil
}

// Notify posts the notice. The thread is empty. Errors: *notify.Busy, *notify.Rejected, or a passing fault.
func (n *Notifier) Notify(ctx context.Context, request notify.Request) (notify.Thread, error) {
	body, err := json.Marshal(request.Notice)
	if err != nil {
		return nil, &notify.Rejected{Err: fmt.Errorf("encode the notice: %w", err)}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, n.url, bytes.NewReader(body))
	if err != nil {
		return nil, &notify.Rejected{Err: httpx.Redact(err)}
	}
	stamp := strconv.FormatInt(time.Now().Unix(), 10)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "aviary")
	req.Header.Set(HeaderKey, headerSafe(request.Notice.ID))
	req.Header.Set(HeaderTimestamp, stamp)
	if len(n.secret) > 0 {
		req.Header.Set(HeaderSignature, Sign(n.secret, stamp, body))
	}
	resp, err := n.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("post to the webhook: %w", httpx.Redact(err))
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body) // so that the connection can be used again
	return nil, n.classify(resp)
}

func (n *Notifier) classify(resp *http.Response) error {
	if resp.StatusCode/100 == 2 {
		return nil
	}
	err := fmt.Errorf("post to the webhook at %s: it answered %d", httpx.Host(n.url), resp.StatusCode)
	after := httpx.RetryAfter(resp.Header, time.Now())
	switch {
	case resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode == http.StatusServiceUnavailable && after > 0:
		if after == 0 {
			after = defaultPause
		}
		return &notify.Busy{RetryAfter: after, Err: err}
	case resp.StatusCode >= 500, resp.StatusCode == http.StatusRequestTimeout, resp.StatusCode == http.StatusTooEarly:
		return err
	}
	return &notify.Rejected{Err: err}
}

// headerSafe is s with everything that a header can't hold replaced.
func headerSafe(s string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '_'
		}
		return r
	}, s)
}

// Sign is the signature of a body that was sent at timestamp.
func Sign(secret []byte, timestamp string, body []byte) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(timestamp + "."))
	mac.Write(body)
	return "v1=" + hex.EncodeToString(mac.Sum(nil))
}

// Verify checks a request's headers against its body: that whoever knows the secret signed it, no longer than tolerance before
// or after now. Errors: what does not fit.
func Verify(secret []byte, h http.Header, body []byte, now time.Time, tolerance time.Duration) error {
	stamp := h.Get(HeaderTimestamp)
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil {
		return fmt.Errorf("no timestamp in %s, want seconds since 1970", HeaderTimestamp)
	}
	if !hmac.Equal([]byte(Sign(secret, stamp, body)), []byte(h.Get(HeaderSignature))) {
		return fmt.Errorf("the signature in %s does not fit", HeaderSignature)
	}
	if age := now.Sub(time.Unix(seconds, 0)).Abs(); age > tolerance {
		return fmt.Errorf("the request is %s from now, want at most %s", age, tolerance)
	}
	return nil
}
