"""Matching topics against MQTT topic filters."""


def matches(topic_filter: str, topic: str) -> bool:
    """MQTT 5 section 4.7: ``+`` one level, ``#`` the rest; wildcards never match ``$…`` topics.

    A leading slash is a level of its own, so ``control/#`` does not match ``/control/x``.
    What comes for ``$share/GROUP/FILTER`` has the topic it was published on.
    """
    if topic_filter.startswith("$share/"):
        topic_filter = topic_filter.split("/", 2)[-1]
    wanted, levels = topic_filter.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in ("+", "#"):
        return False
    for index, level in enumerate(wanted):
        if level == "#":
            return True
        if index >= len(levels) or level not in ("+", levels[index]):
            return False
    return len(levels) == len(wanted)
