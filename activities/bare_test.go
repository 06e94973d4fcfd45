package activities

import (
	"errors"
	"strings"
	"testing"
)

func TestBareHoldsNoAddress(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`http://10.0.0.7:9901: ask the router: Put "http://10.0.0.7:9901/v1/routes/support-agent": dial tcp 10.0.0.7:9901: connect: connection refused`,
		`Post "https://hooks.internal.example/x": dial tcp: lookup hooks.internal.example on 10.0.0.2:53: no such host`,
		`sample: dial tcp [fd00::7]:9090: i/o timeout`,
		`gateway.internal:9901 lags`,
	} {
		got := bare(errors.New(text))
		for _, secret := range []string{"10.0.0", "9901", "fd00", "internal", "9090"} {
			if strings.Contains(got, secret) {
				t.Errorf("%q still holds %s", got, secret)
			}
		}
	}
	if got := bare(errors.New("held by canary/support-agent/0195c1de at revision 3: no answer within 5s")); strings.Contains(got, "[address]") {
		t.Errorf("took something for an address: %q", got)
	}
}
