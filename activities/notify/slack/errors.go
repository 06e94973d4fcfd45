package slack

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/slack-go/slack"

	"github.com/aviary-rollouts/aviary/activities/notify"
	"github.com/aviary-rollouts/aviary/internal/httpx"
)

// defaultPause is how long to wait when Slack is busy and does not say for how long.
const defaultPause = 30 * time.Second

// passing are the refusals that go away by themselves. All others are final.
var passing = map[string]bool{
	"internal_error": true, "fatal_error": true, "service_unavailable": true, "request_timeout": true,
	"team_added_to_org": true,
}

// busy are the refusals that ask for a pause.
var busy = map[string]bool{"ratelimited": true, "rate_limited": true, "message_limit_exceeded": true}

// classify turns an error of slack-go into a *notify.Busy, a *notify.Rejected or a passing fault. None holds the token: it
// travels in the body, and addresses are cut down to the host.
func classify(doing string, err error) error {
	var limited *slack.RateLimitedError
	if errors.As(err, &limited) {
		return &notify.Busy{
			RetryAfter: min(max(limited.RetryAfter, time.Second), httpx.MaxRetryAfter),
			Err:        fmt.Errorf("%s: %w", doing, err),
		}
	}
	var status slack.StatusCodeError
	if errors.As(err, &status) {
		wrapped := fmt.Errorf("%s: slack answered %d", doing, status.Code)
		switch {
		case status.Code == http.StatusTooManyRequests:
			return &notify.Busy{RetryAfter: defaultPause, Err: wrapped}
		case status.Code >= 500 || status.Code == http.StatusRequestTimeout:
			return wrapped
		}
		return &notify.Rejected{Err: wrapped}
	}
	var refused slack.SlackErrorResponse
	if errors.As(err, &refused) {
		wrapped := fmt.Errorf("%s: slack says %s", doing, refused.Err)
		if refused.Needed != "" {
			wrapped = fmt.Errorf("%w (needs the scope %s)", wrapped, refused.Needed)
		}
		switch {
		case busy[refused.Err]:
			return &notify.Busy{RetryAfter: defaultPause, Err: wrapped}
		case passing[refused.Err]:
			return wrapped
		}
		return &notify.Rejected{Err: wrapped}
	}
	return fmt.Errorf("%s: %w", doing, httpx.Redact(err))
}
