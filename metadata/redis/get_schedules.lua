-- {id, ...} -> a description for each
return describe_schedules(input)
