"""Many finished calculations, packed into uploads, with a ledger of what went where.

codes    which files are the main output of a calculation, and when it has ended well
find     the finished calculations of a folder tree or an ASE database
plan     which calculation goes into which upload
ledger   what was planned, sent and counted: a file that grows and survives a crash
pack     the files of an upload as one zip stream
send     the uploads to a NOMAD service, several at once, going on after an interruption
check    whether the service lists what the disk holds
"""
