package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud"
)

// enroll is the verb enroll.
func (a *app) enroll() *cobra.Command {
	var valid time.Duration
	var replace bool
	var out string
	c := &cobra.Command{
		Use: "enroll", Short: "make a one-time token for a new device", Args: exactly(0),
		Long: `Makes a token by which one device becomes a member of the fleet, once. The
token stands alone on standard output; what to do with it on standard error.`,
		Example: "  drover enroll --valid 2h --out gate-3.token",
		RunE: func(c *cobra.Command, _ []string) error {
			if valid < time.Minute || valid > 90*24*time.Hour {
				return usage("for example --valid 24h", "--valid %v: wanted a minute to 90 days", valid)
			}
			return a.withFleet(c.Context(), func(f *cloud.Fleet) error {
				return a.runEnroll(c, f, valid, replace, out)
			})
		},
	}
	c.Flags().DurationVar(&valid, "valid", 24*time.Hour, "how long the token may wait to be used")
	c.Flags().BoolVar(&replace, "replace", false, "let it take the name of a device that is enrolled already (a new card, a new key)")
	c.Flags().StringVar(&out, "out", "", "write the token into this file, which only you can read")
	return c
}

func (a *app) runEnroll(c *cobra.Command, f *cloud.Fleet, valid time.Duration, replace bool, out string) error {
	t, err := f.Token(c.Context(), valid, replace)
	if err != nil {
		return err
	}
	return a.printToken(t, valid, replace, out)
}

// printToken gives a token to the operator.
func (a *app) printToken(t wire.Token, valid time.Duration, replace bool, out string) error {
	until := time.Now().Add(valid).UTC().Truncate(time.Second)
	if out != "" {
		if err := writeFile(out, []byte(t.String()+"\n"), 0o600); err != nil {
			return err
		}
	}
	answer := struct {
		Token   string    `json:"token,omitempty"`
		File    string    `json:"file,omitempty"`
		Fleet   string    `json:"fleet"`
		URL     string    `json:"url"`
		Until   time.Time `json:"valid_until"`
		Replace bool      `json:"replace,omitempty"`
	}{t.String(), out, t.Fleet, t.URL, until, replace}
	if out != "" {
		answer.Token = "" // it is a secret: one place is enough
	}
	return a.print(answer, func(w io.Writer) {
		where := "this token"
		if out == "" {
			fmt.Fprintln(w, t.String())
		} else {
			fmt.Fprintln(w, out)
			where = "the content of " + out
		}
		fmt.Fprintf(a.errOut, `
On the device put %s into the file "enrolment-token" in droverd's state folder
(/var/lib/drover unless its configuration says otherwise) and start droverd. It
calls %s, gets its certificate, and removes the file.
The token works once, until %s.
`, where, t.URL, until.Format("2006-01-02 15:04 UTC"))
	})
}
