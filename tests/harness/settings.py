"""The mirrored series' parameter left unset, off and on."""

from harness.questions import Setting

UNSET, OFF, ON = (Setting.own_value(value) for value in (None, False, True))
