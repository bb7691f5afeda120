package star

// mutant is a rule that is broken on purpose.
type mutant string

const (
	noIntent            mutant = "no intent"
	ackFirst            mutant = "acknowledge before the PATCH"
	baseFirst           mutant = "base first"
	noClaimCheck        mutant = "no claim check"
	claimNotBumped      mutant = "claim not bumped"
	patchAgain          mutant = "PATCH again before the deadline"
	deadlineLate        mutant = "deadline looked at after the GET"
	goneIsSettled       mutant = "an intent that is gone counts as settled"
	ackByGet            mutant = "acknowledge only by a later GET"
	noStamp             mutant = "no stamp"
	anyAttempt          mutant = "S5 without the attempt check"
	refusalClearsAny    mutant = "a refusal clears any intent"
	missingUnstars      mutant = "404 is an un-star"
	missingForgets      mutant = "404 forgets the edge"
	newRowIsOld         mutant = "a new row is the old one"
	forgetBase          mutant = "a row that goes takes the base along"
	otherTaskIsOld      mutant = "another task is the old one"
	doneForgetsTriggers mutant = "mark done what was dirtied meanwhile"
)

func (m *model) decide(row Result, hub Hub, looks []Look) Decision {
	return Decide(row, hub, looks)
}
